//! Questions to the server about who somebody is and what they may do. They are created to be
//! answered (`handlers/reviews`), and none is stored.

use coracle_apimachinery::field::Path;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};

use crate::registry::strategy::{Descriptor, ErrorList, Strategy};
use crate::validation::authorization::{
    validate_attributes, validate_empty_meta, validate_local, validate_subject,
};

/// The verb of a kind that is only asked.
const ASKED: &[&str] = &["create"];

pub(super) struct SelfSubjectReviewStrategy;

impl Strategy for SelfSubjectReviewStrategy {
    type Object = SelfSubjectReview;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<SelfSubjectReview>().computed(ASKED)
    }

    fn validate(&self, _object: &SelfSubjectReview) -> ErrorList {
        ErrorList::default()
    }

    fn validate_update(&self, new: &SelfSubjectReview, _old: &SelfSubjectReview) -> ErrorList {
        self.validate(new)
    }
}

pub(super) struct TokenReviewStrategy;

impl Strategy for TokenReviewStrategy {
    type Object = TokenReview;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<TokenReview>().computed(ASKED)
    }

    fn validate(&self, _object: &TokenReview) -> ErrorList {
        ErrorList::default()
    }

    fn validate_update(&self, new: &TokenReview, _old: &TokenReview) -> ErrorList {
        self.validate(new)
    }
}

pub(super) struct SelfSubjectAccessReviewStrategy;

impl Strategy for SelfSubjectAccessReviewStrategy {
    type Object = SelfSubjectAccessReview;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<SelfSubjectAccessReview>().computed(ASKED)
    }

    fn validate(&self, object: &SelfSubjectAccessReview) -> ErrorList {
        let mut errors = ErrorList::default();
        let spec = &object.spec;
        validate_attributes(
            spec.resource_attributes.as_ref(),
            spec.non_resource_attributes.as_ref(),
            &Path::new("spec"),
            &mut errors,
        );
        validate_empty_meta(&object.metadata, &mut errors);
        errors
    }

    fn validate_update(
        &self,
        new: &SelfSubjectAccessReview,
        _old: &SelfSubjectAccessReview,
    ) -> ErrorList {
        self.validate(new)
    }
}

pub(super) struct SubjectAccessReviewStrategy;

impl Strategy for SubjectAccessReviewStrategy {
    type Object = SubjectAccessReview;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<SubjectAccessReview>().computed(ASKED)
    }

    fn validate(&self, object: &SubjectAccessReview) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_subject(&object.spec, &mut errors);
        validate_empty_meta(&object.metadata, &mut errors);
        errors
    }

    fn validate_update(&self, new: &SubjectAccessReview, _old: &SubjectAccessReview) -> ErrorList {
        self.validate(new)
    }
}

pub(super) struct LocalSubjectAccessReviewStrategy;

impl Strategy for LocalSubjectAccessReviewStrategy {
    type Object = LocalSubjectAccessReview;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<LocalSubjectAccessReview>().computed(ASKED)
    }

    fn validate(&self, object: &LocalSubjectAccessReview) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_subject(&object.spec, &mut errors);
        validate_local(&object.spec, &object.metadata, &mut errors);
        errors
    }

    fn validate_update(
        &self,
        new: &LocalSubjectAccessReview,
        _old: &LocalSubjectAccessReview,
    ) -> ErrorList {
        self.validate(new)
    }
}

pub(super) struct SelfSubjectRulesReviewStrategy;

impl Strategy for SelfSubjectRulesReviewStrategy {
    type Object = SelfSubjectRulesReview;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<SelfSubjectRulesReview>().computed(ASKED)
    }

    fn validate(&self, _object: &SelfSubjectRulesReview) -> ErrorList {
        ErrorList::default()
    }

    fn validate_update(
        &self,
        new: &SelfSubjectRulesReview,
        _old: &SelfSubjectRulesReview,
    ) -> ErrorList {
        self.validate(new)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn questions_are_whole() {
        let resource = json!({"verb": "get", "resource": "pods", "namespace": "a"});
        let path = json!({"verb": "get", "path": "/metrics"});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"spec": {"user": "jane", "resourceAttributes": resource}}),
                vec![],
            ),
            (
                json!({"spec": {"groups": ["g"], "nonResourceAttributes": path}}),
                vec![],
            ),
            (
                json!({"metadata": {"name": "x"}, "spec": {}}),
                vec![
                    "spec FieldValueInvalid exactly one of nonResourceAttributes or resourceAttributes must be specified",
                    "spec.user FieldValueInvalid at least one of user or group must be specified",
                    "metadata FieldValueInvalid must be empty",
                ],
            ),
            (
                json!({"spec": {"user": "jane", "resourceAttributes": resource, "nonResourceAttributes": path}}),
                vec![
                    "spec FieldValueInvalid exactly one of nonResourceAttributes or resourceAttributes must be specified",
                ],
            ),
            (
                json!({"spec": {"user": "jane", "resourceAttributes": {
                    "fieldSelector": {"requirements": [{"key": "", "operator": "In"}]},
                    "labelSelector": {"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Newer"}]},
                }}}),
                vec![
                    "spec.resourceAttributes.labelSelector.rawSelector FieldValueInvalid may not specified at the same time as requirements",
                    "spec.resourceAttributes.fieldSelector.requirements[0].key FieldValueRequired must be specified",
                    "spec.resourceAttributes.fieldSelector.requirements[0].values FieldValueRequired must be specified when",
                ],
            ),
            (
                json!({"spec": {"user": "jane", "resourceAttributes": {"fieldSelector": {}}}}),
                vec![
                    "spec.resourceAttributes.fieldSelector.requirements FieldValueRequired when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
                ],
            ),
        ];
        for (review, want) in table {
            let review = serde_json::from_value(review).unwrap();
            assert_causes(&SubjectAccessReviewStrategy.validate(&review), &want);
        }
        let local = |namespace: &str, spec: Value| {
            let review = json!({"metadata": {"namespace": namespace}, "spec": spec});
            LocalSubjectAccessReviewStrategy.validate(&serde_json::from_value(review).unwrap())
        };
        let spec = json!({"user": "jane", "resourceAttributes": resource});
        assert_causes(&local("a", spec.clone()), &[]);
        assert_causes(
            &local("b", spec),
            &["spec.resourceAttributes.namespace FieldValueInvalid must match metadata.namespace"],
        );
        assert_causes(
            &local("b", json!({"user": "jane", "nonResourceAttributes": path})),
            &["spec.nonResourceAttributes FieldValueInvalid disallowed on this kind of request"],
        );
    }
}
