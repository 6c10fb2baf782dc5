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

use std::thread;

use ::cel::parser::Parser;

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
    // The parser recurses, and it is not ours: it has a stack of its own, and may not take the
    // server with it.
    let compiled = thread::scope(|scope| {
        thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || parse_and_check(expression, environment))
            .map(|reader| reader.join())
    });
    match compiled {
        Ok(Ok(compiled)) => compiled,
        Ok(Err(_)) => Err(failed("ERROR: <input>: Syntax error".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn parse_and_check(expression: &str, environment: &Environment) -> Result<Type, String> {
    let parser = Parser::new().enable_optional_syntax(true);
    let (parsed, source) = parser
        .parse_with_source_info(expression)
        .map_err(|errors| failed(errors.to_string()))?;
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
        "ERROR: <input>:{line}:{column}: {fault}\n| {shown}\n| {:.>column$}",
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
