//! Instance profiles for node classes that name a role.
//!
//! Source: karpenter-provider-aws, `pkg/providers/instanceprofile`.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::cloud::{
    CloudError,
    aws::{
        action::{
            ADD_ROLE_TO_INSTANCE_PROFILE, CREATE_INSTANCE_PROFILE, DELETE_INSTANCE_PROFILE,
            GET_INSTANCE_PROFILE, REMOVE_ROLE_FROM_INSTANCE_PROFILE,
        },
        answer::{Ignored, members},
        client::Client,
        form::Form,
    },
};

/// How long a profile is taken to be there (aws, `pkg/cache/cache.go`).
const FRESH: Duration = Duration::from_mins(15);

/// Instance profiles that are there, and when that was seen.
#[derive(Debug, Default)]
pub(super) struct InstanceProfiles(Mutex<BTreeMap<String, Instant>>);

impl InstanceProfiles {
    /// Makes sure that there is a profile of this name that gives this role.
    pub(super) async fn ensure(
        &self,
        client: &Client,
        name: &str,
        role: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), CloudError> {
        let mut seen = self.0.lock().await;
        if seen.get(name).is_some_and(|since| since.elapsed() < FRESH) {
            return Ok(());
        }
        match role_of(client, name).await {
            Ok(Some(found)) if found == role => {}
            Ok(Some(found)) => {
                let problem =
                    format!("gives the role {found}, not {role}, and was not made by Tandem: delete it");
                return Err(CloudError::configuration(format!("instance profile {name}"), problem));
            }
            Ok(None) => add(client, name, role).await?,
            Err(CloudError::NotFound(_)) => {
                create(client, name, tags).await?;
                add(client, name, role).await?;
            }
            Err(error) => return Err(error),
        }
        seen.insert(name.to_owned(), Instant::now());
        Ok(())
    }

    /// Removes a profile, the role taken out of it before; one that is gone is no error.
    pub(super) async fn remove(&self, client: &Client, name: &str) -> Result<(), CloudError> {
        let mut seen = self.0.lock().await;
        seen.remove(name);
        let removed = match role_of(client, name).await {
            Ok(Some(role)) => take_out(client, name, &role).await,
            found => found.map(drop),
        };
        let removed = match removed {
            Ok(()) => delete(client, name).await,
            Err(error) => Err(error),
        };
        match removed {
            Err(CloudError::NotFound(_)) => Ok(()),
            other => other,
        }
    }
}

/// The role that a profile gives.
async fn role_of(client: &Client, name: &str) -> Result<Option<String>, CloudError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        instance_profile: Profile,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Profile {
        #[serde(default, deserialize_with = "members")]
        roles: Vec<Role>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Role {
        role_name: String,
    }
    let form = Form::new().set("InstanceProfileName", name);
    let answer: Answer = client.query(&GET_INSTANCE_PROFILE, form).await?;
    Ok(answer.instance_profile.roles.into_iter().next().map(|role| role.role_name))
}

async fn create(client: &Client, name: &str, tags: &BTreeMap<String, String>) -> Result<(), CloudError> {
    let mut form = Form::new().set("InstanceProfileName", name);
    for (index, (key, value)) in tags.iter().enumerate() {
        let tag = Form::new().set("Key", key).set("Value", value);
        form = form.nest(&format!("Tags.member.{}", index + 1), tag);
    }
    match client.query::<Ignored>(&CREATE_INSTANCE_PROFILE, form).await {
        // Another replica was faster.
        Err(CloudError::Refused { code, .. }) if code == "EntityAlreadyExists" => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn add(client: &Client, name: &str, role: &str) -> Result<(), CloudError> {
    let form = Form::new().set("InstanceProfileName", name).set("RoleName", role);
    client.query::<Ignored>(&ADD_ROLE_TO_INSTANCE_PROFILE, form).await.map(|_| ())
}

async fn take_out(client: &Client, name: &str, role: &str) -> Result<(), CloudError> {
    let form = Form::new().set("InstanceProfileName", name).set("RoleName", role);
    client.query::<Ignored>(&REMOVE_ROLE_FROM_INSTANCE_PROFILE, form).await.map(|_| ())
}

async fn delete(client: &Client, name: &str) -> Result<(), CloudError> {
    let form = Form::new().set("InstanceProfileName", name);
    client.query::<Ignored>(&DELETE_INSTANCE_PROFILE, form).await.map(|_| ())
}
