//! What a request to the API server is about, read from its path.

use http::Method;

/// Subresources that start something when they are read.
const CONNECTS: [&str; 4] = ["exec", "attach", "portforward", "proxy"];
/// What is posted to learn something: nothing of it is kept.
const REVIEWS: [(&str, &str); 6] = [
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// A resource of the API, or one object of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// The group; empty for the core's.
    pub(super) group: String,
    /// The namespace; empty for what has none.
    pub(super) namespace: String,
    /// The plural: `deployments`.
    pub(super) resource: String,
    /// The object; empty for all of them.
    pub(super) name: String,
    /// `scale`, `status`, `eviction`, …; empty for the object itself.
    pub(super) subresource: String,
}

impl Place {
    /// Reads `/api/v1/namespaces/NS/pods/NAME/eviction` and the like; `None` for paths of other things.
    pub(super) fn of(path: &str) -> Option<Self> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let _version = parts.next()?;
        let mut rest: Vec<&str> = parts.collect();
        let namespace = if rest.len() > 2 && rest[0] == "namespaces" {
            let namespace = rest[1];
            rest.drain(..2);
            namespace
        } else {
            ""
        };
        let part = |place: usize| rest.get(place).copied().unwrap_or_default().to_owned();
        Some(Self {
            group: group.to_owned(),
            namespace: namespace.to_owned(),
            resource: rest.first()?.to_string(),
            name: part(1),
            subresource: rest.get(2..).unwrap_or_default().join("/"),
        })
    }

    /// The plural with its subresource, as rights name it: `deployments/scale`.
    pub(super) fn written(&self) -> String {
        let separator = if self.subresource.is_empty() { "" } else { "/" };
        format!("{}{separator}{}", self.resource, self.subresource)
    }

    /// Whether this is an event.
    pub(super) fn is_event(&self) -> bool {
        self.resource == "events" && matches!(self.group.as_str(), "" | "events.k8s.io")
    }
}

/// Whether a request changes nothing in the cluster, whatever it says.
pub(super) fn is_read(method: &Method, place: Option<&Place>) -> bool {
    match *method {
        Method::GET | Method::HEAD => place.is_none_or(|place| {
            let first = place.subresource.split('/').next().unwrap_or_default();
            !CONNECTS.contains(&first)
        }),
        Method::POST => place.is_some_and(|place| {
            place.name.is_empty() && REVIEWS.contains(&(place.group.as_str(), place.resource.as_str()))
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &Method, path: &str) -> bool {
        is_read(method, Place::of(path).as_ref())
    }

    #[test]
    fn paths_are_read() {
        for (path, group, namespace, written, name) in [
            ("/api/v1/nodes/n", "", "", "nodes", "n"),
            ("/api/v1/namespaces/shop", "", "", "namespaces", "shop"),
            ("/api/v1/namespaces/shop/pods", "", "shop", "pods", ""),
            ("/api/v1/namespaces/shop/pods/p/eviction", "", "shop", "pods/eviction", "p"),
            (
                "/apis/apps/v1/namespaces/shop/deployments/web/scale",
                "apps",
                "shop",
                "deployments/scale",
                "web",
            ),
            ("/apis/karpenter.sh/v1/nodeclaims", "karpenter.sh", "", "nodeclaims", ""),
        ] {
            let place = Place::of(path).unwrap();
            assert_eq!(
                (
                    place.group.as_str(),
                    place.namespace.as_str(),
                    place.written().as_str(),
                    place.name.as_str()
                ),
                (group, namespace, written, name),
                "{path}"
            );
        }
        assert_eq!(Place::of("/version"), None);
        assert_eq!(Place::of("/apis"), None);
    }

    #[test]
    fn only_reads_and_reviews_are_let_through() {
        let object = "/apis/apps/v1/namespaces/shop/deployments/web";
        for method in [Method::GET, Method::HEAD] {
            assert!(read(&method, object) && read(&method, "/version"));
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PURGE"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            for path in
                [object, "/apis/apps/v1/namespaces/shop/deployments", "/api/v1/nodes", "/version", "/"]
            {
                assert!(!read(&method, path), "{method} {path}");
            }
        }
        for (group, resource) in REVIEWS {
            let path = format!("/apis/{group}/v1/{resource}");
            assert!(read(&Method::POST, &path), "{path}");
            assert!(!read(&Method::PUT, &path) && !read(&Method::POST, &format!("{path}/x")), "{path}");
        }
        assert!(read(&Method::POST, "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews"));
        // A group of somebody's own with the same plural is none.
        assert!(!read(&Method::POST, "/apis/example.com/v1/tokenreviews"));
        assert!(!read(&Method::POST, "/api/v1/namespaces/a/serviceaccounts/b/token"));
        for connects in ["pods/p/exec", "pods/p/attach", "pods/p/portforward", "services/s/proxy/start"] {
            assert!(!read(&Method::GET, &format!("/api/v1/namespaces/a/{connects}")), "{connects}");
        }
    }
}
