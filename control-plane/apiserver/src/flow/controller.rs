//! The configuration of flow control: read when it changes, made anew where what is bootstrapped
//! is missing, and told in the status of each FlowSchema whether its priority level exists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::status::Status;
use coracle_store::Event;
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaCondition, PriorityLevelConfiguration,
};
use tokio_util::sync::CancellationToken;

use super::{ADJUST_EVERY, Flow};
use crate::auth::{MASTERS, UserInfo};
use crate::bootstrap;
use crate::registry::erased::Object;
use crate::registry::update::Part;
use crate::registry::{Caller, FieldManager, Registry, Target, meta, prefix, typed};
use crate::validation::{items, text};

/// As whom statuses are written.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const DANGLING: &str = "Dangling";
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the configuration, and lends seats, until cancelled. `read` is told when the
/// configuration is in use for the first time.
pub(crate) async fn run(
    registry: Arc<Registry>,
    flow: Arc<Flow>,
    read: impl Fn() + Send,
    cancel: CancellationToken,
) {
    let following = async {
        loop {
            if let Err(error) = follow(&registry, &flow, &read).await {
                tracing::warn!(%error, "could not read the configuration of flow control, trying again");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let lending = async {
        loop {
            tokio::time::sleep(ADJUST_EVERY).await;
            flow.adjust();
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = following => {}
        () = lending => {}
    }
}

/// Reads the configuration at each change, until the watch ends.
async fn follow(registry: &Registry, flow: &Flow, read: &impl Fn()) -> Result<(), Status> {
    let from = registry.store.revision();
    let watch = async |kind: &crate::registry::strategy::Descriptor| {
        let watch = registry.store.watch(&prefix(kind, ""), from).await;
        watch.map_err(|error| Status::internal(error.to_string()))
    };
    let schemas = watch(registry.kind_of::<FlowSchema>()?.descriptor()).await?;
    let levels = watch(
        registry
            .kind_of::<PriorityLevelConfiguration>()?
            .descriptor(),
    )
    .await?;
    let mut changes = stream::select(schemas, levels);
    loop {
        reload(registry, flow).await?;
        read();
        loop {
            match changes.next().await {
                Some(Ok(Event::Progress(_))) => {}
                Some(Ok(_)) => break,
                Some(Err(error)) => return Err(Status::internal(error.to_string())),
                None => return Ok(()),
            }
        }
        // What has come meanwhile is read at once with it.
        while let Some(Some(Ok(_))) = changes.next().now_or_never() {}
    }
}

async fn reload(registry: &Registry, flow: &Flow) -> Result<(), Status> {
    bootstrap::flow_control(registry).await?;
    let schemas = registry.find_all::<FlowSchema>("").await?;
    let levels = registry.find_all::<PriorityLevelConfiguration>("").await?;
    let names: BTreeSet<String> = levels
        .iter()
        .map(|level| text(&level.metadata.name).to_owned())
        .collect();
    flow.configure(schemas.clone(), levels);
    for schema in &schemas {
        let wanted = condition(schema, &names);
        if !says(schema, &wanted) {
            write(registry, text(&schema.metadata.name), &wanted).await?;
        }
    }
    Ok(())
}

/// What the status of a schema is to say, the time left out.
fn condition(schema: &FlowSchema, levels: &BTreeSet<String>) -> FlowSchemaCondition {
    let level = &schema.spec.priority_level_configuration.name;
    let said =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if levels.contains(level) {
        ("False", "Found", format!("{said} and it exists"))
    } else {
        (
            "True",
            "NotFound",
            format!("{said} but there is no such object"),
        )
    };
    FlowSchemaCondition {
        type_: DANGLING.to_owned(),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
    }
}

fn dangling(schema: &FlowSchema) -> Option<&FlowSchemaCondition> {
    let status = schema.status.as_ref()?;
    let mut conditions = items(&status.conditions).iter();
    conditions.find(|condition| condition.type_ == DANGLING)
}

fn says(schema: &FlowSchema, wanted: &FlowSchemaCondition) -> bool {
    dangling(schema).is_some_and(|said| {
        said.status == wanted.status
            && said.reason == wanted.reason
            && said.message == wanted.message
    })
}

async fn write(
    registry: &Registry,
    name: &str,
    wanted: &FlowSchemaCondition,
) -> Result<(), Status> {
    let user = UserInfo::new("system:apiserver", &[MASTERS]);
    let caller = Caller {
        user: &user,
        dry_run: false,
        manager: FieldManager::Update(MANAGER),
        noted: None,
    };
    let target = Target {
        kind: registry.kind_of::<FlowSchema>()?,
        namespace: "",
        name,
    };
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let mut schema: FlowSchema = typed(current.boxed())?;
        let mut condition = wanted.clone();
        let unchanged = dangling(&schema)
            .filter(|said| said.status == condition.status)
            .and_then(|said| said.last_transition_time.clone());
        condition.last_transition_time = Some(unchanged.unwrap_or_else(meta::now));
        let status = schema.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|other| other.type_ != DANGLING);
        conditions.push(condition);
        Ok(Box::new(schema))
    };
    match registry.update(target, Part::Status, &change, caller).await {
        // It has been deleted meanwhile.
        Err(status) if status.reason() == "NotFound" => Ok(()),
        written => written.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_dangles_whose_level_is_not_there() {
        let mut schema: FlowSchema = serde_json::from_value(json!({
            "metadata": {"name": "s"},
            "spec": {"priorityLevelConfiguration": {"name": "l"}},
        }))
        .expect("a schema");
        let table = [
            (vec![], "True", "NotFound", "but there is no such object"),
            (vec!["l"], "False", "Found", "and it exists"),
        ];
        for (levels, status, reason, end) in table {
            let levels = levels.into_iter().map(str::to_owned).collect();
            let wanted = condition(&schema, &levels);
            assert_eq!(text(&wanted.status), status);
            assert_eq!(text(&wanted.reason), reason);
            assert!(text(&wanted.message).ends_with(end));
            assert!(!says(&schema, &wanted));
            let status = schema.status.get_or_insert_default();
            status.conditions = Some(vec![wanted.clone()]);
            assert!(says(&schema, &wanted));
        }
    }
}
