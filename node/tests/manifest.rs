//! The manifest says nothing that Kubernetes doesn't know: read into the API's own types and written again, nothing is missing.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const MANIFEST: &str = include_str!("../../dist/kubernetes/trestle.yaml");

fn written_again<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).expect("fields of the right types");
    serde_json::to_value(typed).expect("JSON")
}

#[test]
fn the_manifest_has_no_field_that_kubernetes_does_not_know() {
    let objects: Vec<Value> = serde_saphyr::from_multiple(MANIFEST).expect("YAML");
    assert_eq!(objects.len(), 6);
    for object in &objects {
        let again = match object["kind"].as_str() {
            Some("Namespace") => written_again::<Namespace>(object),
            Some("ConfigMap") => written_again::<ConfigMap>(object),
            Some("ServiceAccount") => written_again::<ServiceAccount>(object),
            Some("ClusterRole") => written_again::<ClusterRole>(object),
            Some("ClusterRoleBinding") => written_again::<ClusterRoleBinding>(object),
            Some("DaemonSet") => written_again::<DaemonSet>(object),
            kind => panic!("{kind:?}"),
        };
        assert_eq!(*object, again);
    }
}
