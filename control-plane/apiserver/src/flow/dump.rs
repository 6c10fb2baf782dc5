//! What waits and what is served, as tables for people:
//! `/debug/api_priority_and_fairness/dump_priority_levels`, `dump_queues` and `dump_requests`, in
//! the columns that upstream has.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::Flow;
use super::config::Shape;
use super::queues::Queue;

/// Of a level with more queues than this only those are listed that have something in them.
const LISTED: usize = 1024;

/// A table, its columns as wide as what is in them.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(columns: &[&str]) -> Self {
        Self(vec![
            columns.iter().map(|&column| column.to_owned()).collect(),
        ])
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }

    fn render(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            for (index, cell) in row.iter().enumerate() {
                // Writing to a string does not fail.
                let _ = if index + 1 == row.len() {
                    write!(text, "{cell}")
                } else {
                    let cell = format!("{cell},");
                    write!(text, "{cell:<width$}", width = widths[index] + 2)
                };
            }
            text.push('\n');
        }
        text
    }
}

fn none(count: usize) -> impl Iterator<Item = String> {
    std::iter::repeat_n("<none>".to_owned(), count)
}

impl Flow {
    /// One of the tables, by the name in its path.
    pub(crate) fn dump(&self, what: &str, details: bool) -> Option<String> {
        match what {
            "dump_priority_levels" => Some(self.dump_levels()),
            "dump_queues" => Some(self.dump_queues()),
            "dump_requests" => Some(self.dump_requests(details)),
            _ => None,
        }
    }

    fn dump_levels(&self) -> String {
        let mut table = Table::new(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedSeats",
            "CurrentLimit",
        ]);
        for (name, level) in &self.state.lock().levels {
            let queues = &level.queues;
            let active = queues.queues().values().filter(|q| !q.waiting.is_empty());
            let numbers = [
                active.count().to_string(),
                queues.is_idle().to_string(),
                level.quiescing.to_string(),
                queues.waiting().to_string(),
                queues.executing().len().to_string(),
                queues.seats_in_use().to_string(),
                queues.limit().to_string(),
            ];
            table.row(std::iter::once(name.to_string()).chain(numbers));
        }
        table.render()
    }

    fn dump_queues(&self) -> String {
        let mut table = Table::new(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
        ]);
        for (name, level) in &self.state.lock().levels {
            if level.level.shape == Shape::Exempt {
                table.row(std::iter::once(name.to_string()).chain(none(6)));
            }
            let queues = level.queues.queues();
            let all = match level.queues.shape() {
                Shape::Queue(queuing) if queuing.queues <= LISTED => queuing.queues,
                _ => 0,
            };
            let listed: BTreeSet<usize> = (0..all).chain(queues.keys().copied()).collect();
            let empty = Queue::default();
            for index in listed {
                let queue = queues.get(&index).unwrap_or(&empty);
                table.row([
                    name.to_string(),
                    index.to_string(),
                    queue.waiting.len().to_string(),
                    queue.executing.to_string(),
                    queue.seats_in_use.to_string(),
                    format!("{:.8}ss", queue.next),
                    queue.seats_waiting.to_string(),
                ]);
            }
        }
        table.render()
    }

    fn dump_requests(&self, details: bool) -> String {
        let mut columns = vec![
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
        ];
        if details {
            columns.extend([
                "UserName",
                "Verb",
                "APIPath",
                "Namespace",
                "Name",
                "APIVersion",
                "Resource",
                "SubResource",
            ]);
        }
        let mut table = Table::new(&columns);
        for (name, level) in &self.state.lock().levels {
            for (index, queue) in level.queues.queues() {
                for (place, waiting) in queue.waiting.iter().enumerate() {
                    let request = &waiting.request;
                    let description = &request.description;
                    let since = Duration::from_secs_f64(description.since.max(0.0));
                    let since = jiff::Timestamp::UNIX_EPOCH + since;
                    let mut row = vec![
                        name.to_string(),
                        request.schema.to_string(),
                        index.to_string(),
                        place.to_string(),
                        request.distinguisher.clone(),
                        since.to_string(),
                        request.seats.to_string(),
                    ];
                    if details {
                        let info = &description.info;
                        let version = if info.group.is_empty() {
                            info.version.clone()
                        } else {
                            format!("{}/{}", info.group, info.version)
                        };
                        row.extend([
                            description.user.clone(),
                            info.verb.clone(),
                            info.path.clone(),
                            info.namespace.clone(),
                            info.name.clone(),
                            version,
                            info.resource.clone(),
                            info.subresource.clone(),
                        ]);
                    }
                    table.row(row);
                }
            }
        }
        table.render()
    }
}
