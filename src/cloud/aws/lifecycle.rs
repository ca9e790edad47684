//! Hooks of Auto Scaling groups that hold machines when they end.

use super::{
    action::{COMPLETE_LIFECYCLE_ACTION, RECORD_LIFECYCLE_ACTION_HEARTBEAT},
    answer::Ignored,
    client::Client,
    form::Form,
};
use crate::cloud::CloudError;

/// A machine that a hook holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'a> {
    /// The group.
    pub group: &'a str,
    /// The hook.
    pub hook: &'a str,
    /// What the answer is to.
    pub token: &'a str,
    /// `i-…`.
    pub machine: &'a str,
}

impl Held<'_> {
    fn form(&self) -> Form {
        Form::new()
            .set("AutoScalingGroupName", self.group)
            .set("LifecycleHookName", self.hook)
            .set("InstanceId", self.machine)
            .set_some("LifecycleActionToken", Some(self.token).filter(|token| !token.is_empty()))
    }

    /// Lets it end. One that nothing holds any more is no error.
    pub async fn complete(&self, client: &Client) -> Result<(), CloudError> {
        let form = self.form().set("LifecycleActionResult", "CONTINUE");
        match client.query::<Ignored>(&COMPLETE_LIFECYCLE_ACTION, form).await {
            Err(CloudError::Refused { message, .. }) if message.contains("No active Lifecycle Action") => {
                Ok(())
            }
            Err(CloudError::NotFound(_)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Lets it wait for another timeout of the hook.
    pub async fn heartbeat(&self, client: &Client) -> Result<(), CloudError> {
        client.query::<Ignored>(&RECORD_LIFECYCLE_ACTION_HEARTBEAT, self.form()).await.map(|_| ())
    }
}
