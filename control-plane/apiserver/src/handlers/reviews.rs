//! Who somebody is and what they may do: answered by those who decide of every request, so that an
//! answer and a decision are never two things.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::{Response, StatusCode};
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewSpec, TokenReviewStatus,
    UserInfo as Subject,
};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes,
    ResourceRule, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};

use super::encode::{SERVED, accepted_of, value, warn};
use super::{Call, decode};
use crate::auth::UserInfo;
use crate::auth::authorization::authorize;
use crate::auth::rules::rules_of;
use crate::auth::tokens::Refusal;
use crate::registry::erased::Object;
use crate::registry::meta;
use crate::request::info::RequestInfo;
use crate::request::media::Shape;
use crate::request::options::WriteOptions;
use crate::validation::text;

/// Answers a question, which is an object with a status then.
pub(super) async fn answer(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    // A review is no object that is kept: it has neither rows nor metadata to show.
    if accepted_of(call, false)?.shape != Shape::Whole {
        return Err(Status::not_acceptable(SERVED));
    }
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let decoded = decode::object(call, body, options.field_validation).await?;
    let mut question = decoded.object;
    place(call, &mut *question)?;
    call.kind.set_defaults(&mut *question);
    let errors = call.kind.validate(&*question);
    if !errors.is_empty() {
        let kind = call.kind.descriptor().group_kind();
        return Err(Status::invalid(&kind, "", errors));
    }
    decide(call, &mut *question).await?;
    let answer = question
        .to_value()
        .map_err(|error| crate::registry::errors::internal("encode a review", &error))?;
    let mut response = value(&call.parts.headers, StatusCode::CREATED, &answer)?;
    warn(response.headers_mut(), &decoded.warnings);
    Ok(response)
}

/// Gives the question the namespace in which it is asked.
fn place(call: &Call<'_>, question: &mut dyn Object) -> Result<(), Status> {
    if !call.kind.descriptor().is_namespaced() {
        return Ok(());
    }
    let meta = question.meta_mut();
    match text(&meta.namespace) {
        "" => meta.namespace = Some(call.info.namespace.clone()),
        given if given == call.info.namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

async fn decide(call: &Call<'_>, question: &mut dyn Object) -> Result<(), Status> {
    let any = question.as_any_mut();
    if let Some(review) = any.downcast_mut::<SelfSubjectReview>() {
        review.metadata.creation_timestamp = Some(meta::now());
        review.status = Some(SelfSubjectReviewStatus {
            user_info: Some(subject(call.user)),
        });
    } else if let Some(review) = any.downcast_mut::<TokenReview>() {
        review.status = Some(token(call, &review.spec).await?);
    } else if let Some(review) = any.downcast_mut::<SelfSubjectAccessReview>() {
        let spec = &review.spec;
        let info = request(&spec.resource_attributes, &spec.non_resource_attributes);
        review.status = Some(access(call.user, &info));
    } else if let Some(review) = any.downcast_mut::<SubjectAccessReview>() {
        review.status = Some(access_of(&review.spec));
    } else if let Some(review) = any.downcast_mut::<LocalSubjectAccessReview>() {
        review.status = Some(access_of(&review.spec));
    } else if let Some(review) = any.downcast_mut::<SelfSubjectRulesReview>() {
        let namespace = text(&review.spec.namespace);
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        review.status = Some(rules(call.user, namespace));
    } else {
        let kind = &call.kind.descriptor().kind;
        return Err(Status::internal(format!("nobody answers a {kind}")));
    }
    Ok(())
}

async fn token(call: &Call<'_>, spec: &TokenReviewSpec) -> Result<TokenReviewStatus, Status> {
    if spec.token.is_empty() {
        let message = "token is required for TokenReview in authentication";
        return Err(Status::bad_request(message));
    }
    let Some(tokens) = &call.server.tokens else {
        return Ok(TokenReviewStatus::default());
    };
    let audiences = spec.audiences.as_deref().unwrap_or_default();
    let registry = &call.server.registry;
    Ok(
        match tokens.authenticate(registry, &spec.token, audiences).await {
            Ok(found) => TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(found.audiences),
                user: Some(subject(&found.user)),
                error: None,
            },
            Err(Refusal::Lookup(status)) => return Err(*status),
            Err(refusal) => TokenReviewStatus {
                error: Some(refusal.to_string()),
                ..TokenReviewStatus::default()
            },
        },
    )
}

fn subject(user: &UserInfo) -> Subject {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Subject {
        username: some(&user.name),
        uid: some(&user.uid),
        groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

fn access_of(spec: &SubjectAccessReviewSpec) -> SubjectAccessReviewStatus {
    let user = UserInfo {
        name: text(&spec.user).to_owned(),
        uid: text(&spec.uid).to_owned(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    let info = request(&spec.resource_attributes, &spec.non_resource_attributes);
    access(&user, &info)
}

fn access(user: &UserInfo, info: &RequestInfo) -> SubjectAccessReviewStatus {
    SubjectAccessReviewStatus {
        allowed: authorize(user, info).is_ok(),
        ..SubjectAccessReviewStatus::default()
    }
}

/// The request that is asked about.
fn request(
    resource: &Option<ResourceAttributes>,
    path: &Option<NonResourceAttributes>,
) -> RequestInfo {
    let own = |value: &Option<String>| text(value).to_owned();
    match (resource, path) {
        (Some(resource), _) => RequestInfo {
            is_resource: true,
            verb: own(&resource.verb),
            group: own(&resource.group),
            version: own(&resource.version),
            namespace: own(&resource.namespace),
            resource: own(&resource.resource),
            subresource: own(&resource.subresource),
            name: own(&resource.name),
            ..RequestInfo::default()
        },
        (None, path) => RequestInfo {
            path: path
                .as_ref()
                .map(|asked| own(&asked.path))
                .unwrap_or_default(),
            verb: path
                .as_ref()
                .map(|asked| own(&asked.verb))
                .unwrap_or_default(),
            ..RequestInfo::default()
        },
    }
}

fn rules(user: &UserInfo, namespace: &str) -> SubjectRulesReviewStatus {
    let all = || vec!["*".to_owned()];
    let found = rules_of(user, namespace);
    let mut status = SubjectRulesReviewStatus::default();
    if found.every_resource {
        status.resource_rules.push(ResourceRule {
            api_groups: Some(all()),
            resource_names: None,
            resources: Some(all()),
            verbs: all(),
        });
    }
    let limited = found
        .creatable
        .into_iter()
        .filter(|_| !found.every_resource);
    for (group, resources) in limited {
        status.resource_rules.push(ResourceRule {
            api_groups: Some(vec![group.to_owned()]),
            resource_names: None,
            resources: Some(resources.into_iter().map(str::to_owned).collect()),
            verbs: vec!["create".to_owned()],
        });
    }
    if found.every_path {
        status.non_resource_rules.push(NonResourceRule {
            non_resource_urls: Some(all()),
            verbs: all(),
        });
    }
    if !found.readable.is_empty() {
        status.non_resource_rules.push(NonResourceRule {
            non_resource_urls: Some(found.readable),
            verbs: ["get", "head"].map(str::to_owned).into(),
        });
    }
    status
}
