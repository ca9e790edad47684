//! The credentials of triggers, from Secrets and ConfigMaps among the manifests.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::de::DeserializeOwned;
use simulate::{Input, Manifest};
use tandem_core::api::keda::{AuthenticationRef, ClusterTriggerAuthentication, TriggerAuthentication};

use crate::cluster::auth::{AuthError, Authentication, Values, resolve};

/// What a reference of an object in a namespace resolves to; `None` if what it names is not among the manifests.
///
/// # Errors
/// See [`AuthError`].
pub(super) async fn of(
    input: &Input,
    namespace: &str,
    reference: &AuthenticationRef,
) -> Result<Option<Authentication>, AuthError> {
    let mut values = Manifests(input);
    if reference.is_cluster() {
        // Its Secrets live where Tandem does, which no manifest tells.
        let found =
            values.find::<ClusterTriggerAuthentication>("ClusterTriggerAuthentication", "", &reference.name);
        let Some(found) = found else { return Ok(None) };
        return resolve(&found.spec.spec, "", &mut values).await.map(Some);
    }
    let found = values.find::<TriggerAuthentication>("TriggerAuthentication", namespace, &reference.name);
    let Some(found) = found else { return Ok(None) };
    resolve(&found.spec, namespace, &mut values).await.map(Some)
}

/// The values as manifests have them.
struct Manifests<'a>(&'a Input);

impl Manifests<'_> {
    /// The last object of a kind and name; in any namespace if none is given.
    fn find<T: DeserializeOwned>(&self, kind: &str, namespace: &str, name: &str) -> Option<T> {
        let is_it = |manifest: &&Manifest| {
            manifest.kind() == kind
                && manifest.name() == name
                && (namespace.is_empty() || manifest.namespace() == namespace)
        };
        let found = self.0.manifests.iter().rev().find(is_it)?;
        T::deserialize(&*found.value).ok()
    }
}

impl Values for Manifests<'_> {
    async fn secret(&mut self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, AuthError> {
        let Some(secret) = self.find::<Secret>("Secret", namespace, name) else { return Ok(None) };
        let plain = secret.string_data.and_then(|mut data| data.remove(key));
        let encoded =
            || secret.data.as_ref()?.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned());
        Ok(plain.or_else(encoded))
    }

    async fn config_map(
        &mut self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<Option<String>, AuthError> {
        let map = self.find::<ConfigMap>("ConfigMap", namespace, name);
        Ok(map.and_then(|map| map.data?.remove(key)))
    }

    async fn environment(&mut self, _: Option<&str>) -> Result<BTreeMap<String, String>, AuthError> {
        Err(AuthError::NoContainers)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn input(manifests: &[Value]) -> Input {
        let manifest =
            |value: &Value| Manifest { file: "test".into(), line: 1, value: Arc::new(value.clone()) };
        Input { manifests: manifests.iter().map(manifest).collect(), ..Input::default() }
    }

    #[tokio::test]
    async fn credentials_are_those_of_the_manifests() {
        let authentication = |spec: Value| {
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication",
                "metadata": {"name": "login", "namespace": "shop"}, "spec": spec})
        };
        let refers = |kind: &str| {
            authentication(
                json!({kind: [{"parameter": "bearerToken", "name": "prometheus", "key": "token"}]}),
            )
        };
        let of_kind = |kind: &str, field: &str, value: &str| {
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "prometheus", "namespace": "shop"},
                (field): {"token": value}})
        };
        let reference: AuthenticationRef = serde_json::from_value(json!({"name": "login"})).unwrap();
        let token = async |manifests: &[Value]| {
            let found = of(&input(manifests), "shop", &reference).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(found.map(|found| found.params["bearerToken"].expose().to_owned()))
        };
        for (kind, object) in [
            ("secretTargetRef", of_kind("Secret", "data", "b3Blbg==")),
            ("secretTargetRef", of_kind("Secret", "stringData", "open")),
            ("configMapTargetRef", of_kind("ConfigMap", "data", "open")),
        ] {
            assert_eq!(token(&[refers(kind), object.clone()]).await, Ok(Some("open".to_owned())), "{object}");
        }
        assert_eq!(
            token(&[of_kind("Secret", "stringData", "open")]).await,
            Ok(None),
            "there is no authentication"
        );
        let absent = token(&[refers("secretTargetRef")]).await.unwrap_err();
        assert!(absent.starts_with("Secret shop/prometheus has no key \"token\""), "{absent}");
        let environment = authentication(json!({"env": [{"parameter": "bearerToken", "name": "TOKEN"}]}));
        let refused = token(&[environment]).await.unwrap_err();
        assert!(refused.contains("environment"), "{refused}");
    }
}
