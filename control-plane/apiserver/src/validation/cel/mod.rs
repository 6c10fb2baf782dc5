//! Expressions of the Common Expression Language, as policies, webhooks and claims of devices have
//! them: whether one is an expression at all, and what type its value will have.
//!
//! **Checked**: the syntax; that every variable, function, member and type is declared where the
//! expression stands; that functions, operators and macros take what they are given; the type of
//! the whole. Which there are stands in one table (`environment.txt`).
//!
//! **Deliberately absent**, though Kubernetes has it: an estimate of what an evaluation will cost
//! (an expression that is too dear is found when it is evaluated); literals of durations, times and
//! patterns that are none; the types of objects, which stay dynamic here as they do there; all
//! faults of an expression at once, of which the first is told.

mod check;
mod environment;
mod nesting;
mod types;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use ::cel::parser::Parser;
use tokio::runtime::{Handle, RuntimeFlavor};

pub(crate) use self::environment::Environment;
pub(crate) use self::types::Type;

/// Characters of the longest expression: the bound of the language's reference implementation.
const LONGEST: usize = 100_000;
/// The stack of the thread that reads an expression. What is nested as deep as is allowed needs
/// a part of it.
const STACK: usize = 16 << 20;

/// The type of an expression; what is wrong with it where it has none.
pub(crate) fn compile(expression: &str, environment: &Environment) -> Result<Type, String> {
    let size = expression.chars().count();
    if size > LONGEST {
        let fault = format!(
            "ERROR: <input>:-1:0: expression code point size exceeds limit: size: {size}, limit {LONGEST}"
        );
        return Err(failed(fault));
    }
    nesting::check(expression).map_err(failed)?;
    let compile = || {
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            parse_and_check(expression, environment)
        }));
        compiled.unwrap_or_else(|_| Err(failed("ERROR: <input>: Syntax error".to_owned())))
    };
    apart(compile).unwrap_or_else(|error| Err(failed(error.to_string())))
}

thread_local! {
    /// Whether this thread is one for expressions.
    static IS_APART: Cell<bool> = const { Cell::new(false) };
}

/// Does something that compiles expressions on a thread for that, while others do the work of this
/// one: it may take long, and the parser, which is not ours, recurses. It has a stack of its own, and
/// may not take the server with it.
///
/// # Errors
/// Where there is no such thread to be had.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    if IS_APART.get() {
        return Ok(work());
    }
    let run = || {
        let worked = thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK);
            let thread = thread.spawn_scoped(scope, || {
                IS_APART.set(true);
                work()
            })?;
            Ok(thread.join())
        });
        worked.map(|worked| worked.unwrap_or_else(|panic| resume_unwind(panic)))
    };
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(run),
        _ => run(),
    }
}

fn parse_and_check(expression: &str, environment: &Environment) -> Result<Type, String> {
    let parser = Parser::new().enable_optional_syntax(true);
    let (parsed, source) = parser
        .parse_with_source_info(expression)
        // Its lines are not indented, as those of Kubernetes are.
        .map_err(|errors| failed(errors.to_string().replace("\n| ", "\n | ")))?;
    check::Checker::new(environment)
        .infer(&parsed)
        .map_err(|fault| {
            let start = fault.at.and_then(|id| source.offset_for(id));
            let start = start.map_or(0, |(start, _)| start as usize);
            failed(located(expression, start, &fault.text))
        })
}

/// A fault as the parser writes its own: with the line that it is in, and a mark below it.
fn located(expression: &str, start: usize, fault: &str) -> String {
    let before: String = expression.chars().take(start).collect();
    let line = before.matches('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let shown = expression.lines().nth(line).unwrap_or_default();
    let line = line + 1;
    format!(
        "ERROR: <input>:{line}:{column}: {fault}\n | {shown}\n | {:.>column$}",
        "^"
    )
}

fn failed(fault: String) -> String {
    format!("compilation failed: {fault}")
}

/// Compiles an expression that has to be of one of these types.
pub(crate) fn compile_as(
    expression: &str,
    environment: &Environment,
    wanted: &[Type],
) -> Result<(), String> {
    let found = compile(expression, environment)?;
    if wanted.contains(&found) {
        return Ok(());
    }
    Err(match wanted {
        [one] => format!("must evaluate to {one} but got {found}"),
        some => {
            let some: Vec<String> = some.iter().map(Type::to_string).collect();
            format!(
                "must evaluate to one of [{}] but got {found}",
                some.join(" ")
            )
        }
    })
}

/// Whether a name can be that of a variable.
pub(crate) fn is_identifier(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests;
