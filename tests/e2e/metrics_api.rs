//! external.metrics.k8s.io, asked directly and through the aggregator.

use anyhow::{Context, Result, ensure};
use harness::certificates::{Authority, Identity};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use reqwest::{Client, StatusCode};
use serde_json::json;

use crate::case::Case;

/// A client of the metrics API's own port, with the trust that kube-apiserver has (the caBundle of the `APIService`).
struct Direct {
    address: std::net::SocketAddr,
    authority: reqwest::Certificate,
    url: String,
}

impl Direct {
    async fn new(case: &Case<'_>) -> Result<Self> {
        let kind = GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService");
        let services: Api<DynamicObject> = Api::all_with(case.client(), &ApiResource::from_gvk(&kind));
        let service = services.get("v1beta1.external.metrics.k8s.io").await?;
        let bundle = service.data["spec"]["caBundle"].as_str().context("the APIService has no caBundle")?;
        let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, bundle)?;
        let path =
            format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/s0-prometheus", case.namespace);
        Ok(Self {
            address: case.world.install.metrics_api,
            authority: reqwest::Certificate::from_pem(&pem)?,
            url: format!("https://tandem.tandem.svc{path}?labelSelector=scaledobject.keda.sh%2Fname%3Dshop"),
        })
    }

    /// What the caller's GET is answered; nothing when TLS already refuses.
    async fn get(&self, caller: &Caller<'_>) -> Result<Option<StatusCode>> {
        let mut client = Client::builder()
            .no_proxy()
            .resolve("tandem.tandem.svc", self.address)
            .tls_certs_only([self.authority.clone()]);
        if let Some(identity) = caller.identity {
            let pem = format!("{}{}", identity.certificate, identity.key);
            client = client.identity(reqwest::Identity::from_pem(pem.as_bytes())?);
        }
        let mut request = client.build()?.get(&self.url);
        for (name, value) in caller.headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await.ok().map(|answer| answer.status()))
    }
}

/// Who asks: with which client certificate, and which headers.
struct Caller<'a> {
    who: &'a str,
    identity: Option<&'a Identity>,
    headers: &'a [(&'a str, &'a str)],
}

const AS_ADMIN: [(&str, &str); 2] = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];

pub(crate) async fn strangers_are_refused(case: &Case<'_>) -> Result<()> {
    case.deployment("shop", 1).await?;
    let trigger = case.prometheus("vector(20)", "10");
    case.scaled_object("shop", json!({ "triggers": [trigger] })).await?;
    case.wait_replicas("shop", 2).await?;

    let direct = Direct::new(case).await?;
    let control_plane = &case.world.control_plane;
    let folder = tempfile::tempdir()?;
    let elsewhere = Authority::new(folder.path(), "elsewhere")?;
    let aggregator = control_plane.front_proxy_client();
    let wrong_name = control_plane.front_proxy_authority().client("mallory", "mallory", &[])?;
    let user = control_plane.client_authority().client("bob", "bob", &[])?;
    let stranger = elsewhere.client("front-proxy-client", "front-proxy-client", &["system:masters"])?;
    let caller = |who, identity, headers| Caller { who, identity, headers };
    let allowed = caller("the aggregator for an admin", Some(aggregator), &AS_ADMIN);
    let refused = [
        caller("the aggregator for a nobody", Some(aggregator), &[("X-Remote-User", "nobody")]),
        caller("nobody at all", None, &[]),
        caller("forged headers without a certificate", None, &AS_ADMIN),
        caller("a wrong name of the right authority", Some(&wrong_name), &AS_ADMIN),
        caller("a user with forged headers", Some(&user), &AS_ADMIN),
        caller("the right name of a wrong authority", Some(&stranger), &AS_ADMIN),
        caller("a token that is none", None, &[("Authorization", "Bearer not-a-token")]),
    ];
    ensure!(direct.get(&allowed).await? == Some(StatusCode::OK), "{} is refused", allowed.who);
    for caller in &refused {
        let status = direct.get(caller).await?;
        let refused = matches!(status, None | Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN));
        ensure!(refused, "{} got {status:?}", caller.who);
    }
    Ok(())
}

/// kubectl finds the group, and what it holds, whatever the sources do.
pub(crate) async fn discovery(case: &Case<'_>) -> Result<()> {
    let group = case.kubectl(&["get", "--raw", "/apis/external.metrics.k8s.io/v1beta1"]).await?;
    ensure!(group.contains(r#""kind":"APIResourceList""#) && group.contains("externalmetrics"), "{group}");
    let resources = case.kubectl(&["api-resources", "--api-group=external.metrics.k8s.io"]).await?;
    ensure!(resources.contains("external.metrics.k8s.io/v1beta1"), "{resources}");
    let Err(error) = case.read_metric("s0-none", "nobody").await else {
        anyhow::bail!("a metric that nobody has was served");
    };
    ensure!(format!("{error:#}").contains("NotFound"), "{error:#}");
    Ok(())
}
