use base64::Engine as _;
use tandem_core::api::karpenter::KubeletConfiguration;

use super::*;

fn bootstrap(own: &str) -> Bootstrap<'_> {
    let kubelet: KubeletConfiguration = serde_json::from_value(json!({
        "clusterDNS": ["10.100.0.10"], "maxPods": 29, "kubeReserved": {"cpu": "100m"},
        "evictionHard": {"memory.available": "5%"}, "cpuCFSQuota": false, "imageGCHighThresholdPercent": 80,
        "logging": {"verbosity": 4},
    }))
    .unwrap();
    Bootstrap {
        cluster: "test",
        endpoint: "https://api",
        authority: "Y2E=",
        service_cidr: "10.100.0.0/16",
        kubelet,
        taints: vec![Taint {
            key: "karpenter.sh/unregistered".to_owned(),
            effect: "NoExecute".to_owned(),
            ..Taint::default()
        }],
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        own,
        raid: true,
    }
}

fn text(family: Family, own: &str) -> String {
    let encoded = user_data(family, &bootstrap(own)).unwrap();
    String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
}

#[test]
fn amazon_linux_2() {
    insta::assert_snapshot!(text(Family::Al2, "#!/bin/bash\necho hello"));
}

#[test]
fn amazon_linux_2023() {
    insta::assert_snapshot!(text(Family::Al2023, "#!/bin/bash\necho hello"));
    let merged = text(Family::Al2023, "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\n");
    assert_eq!(merged.matches("Content-Type: application/node.eks.aws").count(), 2, "{merged}");
}

#[test]
fn bottlerocket() {
    let own = "[settings.autoscaling]\nshould-wait = true\n[settings.kubernetes]\ncluster-name = \"other\"\n\
               [settings.kubernetes.node-labels]\nown = \"1\"\n";
    insta::assert_snapshot!(text(Family::Bottlerocket, own));
    for wrong in ["[settings", "settings = 1"] {
        let error = user_data(Family::Bottlerocket, &bootstrap(wrong)).unwrap_err().to_string();
        assert!(error.starts_with("userData: "), "{error}");
    }
}

#[test]
fn windows_and_custom() {
    insta::assert_snapshot!(text(Family::Windows(2022), "Write-Host hello"));
    assert_eq!(text(Family::Custom, "anything"), "anything");
    let long = "x".repeat(MOST + 1);
    let error = user_data(Family::Custom, &bootstrap(&long)).unwrap_err().to_string();
    assert_eq!(error, "userData: 16385 bytes with what is added; EC2 takes 16384");
}

#[test]
fn an_archive_keeps_its_parts() {
    let own = "MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"B\"\n\n--B\n\
               Content-Type: text/cloud-config\n\npackages: []\n--B\nContent-Type: text/x-shellscript\n\necho\n--B--\n";
    let text = text(Family::Al2023, own);
    for part in [
        "--//\nContent-Type: text/cloud-config\n\npackages: []\n",
        "--//\nContent-Type: text/x-shellscript\n\necho\n--//--\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let broken = user_data(Family::Al2, &bootstrap("MIME-Version: 1.0\n\nx")).unwrap_err().to_string();
    assert_eq!(broken, "userData: it begins as a MIME archive and names no boundary of its parts");
}
