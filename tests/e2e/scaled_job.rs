//! `ScaledJobs` say that they are not served yet.

use anyhow::{Result, ensure};
use harness::wait;
use serde_json::json;

use crate::case::{Case, SOON, condition};

pub(crate) async fn is_not_ready(case: &Case<'_>) -> Result<()> {
    let container = json!({ "name": "work", "image": "busybox" });
    case.apply(json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": { "name": "batch" },
        "spec": {
            "jobTargetRef": { "template": { "spec": { "containers": [container], "restartPolicy": "Never" } } },
            "triggers": [case.prometheus("vector(3)", "1")],
        },
    }))
    .await?;
    let jobs = case.api("keda.sh/v1alpha1", "ScaledJob").await?;
    wait::until("Ready=False on the ScaledJob", SOON, || async {
        let job = serde_json::to_value(jobs.get("batch").await?)?;
        let ready = condition(&job, "Ready")?;
        ensure!(ready["status"] == "False", "it is {ready}");
        ensure!(
            ready["message"].as_str().is_some_and(|message| message.contains("ScaledJob")),
            "it is {ready}"
        );
        Ok(())
    })
    .await
}
