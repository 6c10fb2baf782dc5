//! The grammar of label selectors, as `k8s.io/apimachinery/pkg/labels` documents it.

use super::Error;
use super::label::{Operator, Requirement};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

/// Tokens with one of look-ahead.
struct Lexer<'a> {
    rest: &'a str,
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", ">", "<"];

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if self.rest.is_empty() {
            return Token::End;
        }
        for symbol in SYMBOLS {
            if let Some(rest) = self.rest.strip_prefix(symbol) {
                self.rest = rest;
                return Token::Symbol(symbol);
            }
        }
        let special = |c: char| " \t\r\n=!(),<>".contains(c);
        let (word, rest) = self
            .rest
            .split_at(self.rest.find(special).unwrap_or(self.rest.len()));
        self.rest = rest;
        Token::Word(word)
    }

    fn peek(&self) -> Token<'a> {
        Lexer { rest: self.rest }.next()
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.peek() == Token::Symbol(symbol);
        if found {
            self.next();
        }
        found
    }
}

/// Parses a whole selector.
pub(super) fn selector(text: &str) -> Result<Vec<Requirement>, Error> {
    let mut lexer = Lexer { rest: text };
    let mut requirements = Vec::new();
    if lexer.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        requirements.push(requirement(&mut lexer)?);
        match lexer.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") if matches!(lexer.peek(), Token::Word(_) | Token::Symbol("!")) => {}
            Token::Symbol(",") => return Err(unexpected(lexer.peek(), "identifier after ','")),
            other => return Err(unexpected(other, "',' or 'end of string'")),
        }
    }
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, Error> {
    let absent = lexer.take("!");
    let key = match lexer.next() {
        Token::Word(word) => word,
        other => return Err(unexpected(other, "identifier")),
    };
    if absent {
        return Requirement::new(key, Operator::DoesNotExist, []);
    }
    let (operator, values) = match lexer.peek() {
        Token::End | Token::Symbol(",") => (Operator::Exists, Vec::new()),
        _ => match lexer.next() {
            Token::Symbol("=" | "==") => (Operator::In, vec![exact_value(lexer)]),
            Token::Symbol("!=") => (Operator::NotIn, vec![exact_value(lexer)]),
            Token::Symbol(">") => (Operator::GreaterThan, vec![exact_value(lexer)]),
            Token::Symbol("<") => (Operator::LessThan, vec![exact_value(lexer)]),
            Token::Word("in") => (Operator::In, values(lexer)?),
            Token::Word("notin") => (Operator::NotIn, values(lexer)?),
            other => return Err(unexpected(other, "in, notin, =, ==, !=, gt, lt")),
        },
    };
    Requirement::new(key, operator, values)
}

/// The value after `=`, which may be empty.
fn exact_value(lexer: &mut Lexer<'_>) -> String {
    match lexer.peek() {
        Token::Word(word) => {
            lexer.next();
            word.to_owned()
        }
        _ => String::new(),
    }
}

/// `(a, b)`; an omitted value is the empty string.
fn values(lexer: &mut Lexer<'_>) -> Result<Vec<String>, Error> {
    if !lexer.take("(") {
        return Err(unexpected(lexer.peek(), "'('"));
    }
    let mut values = Vec::new();
    loop {
        values.push(exact_value(lexer));
        match lexer.next() {
            Token::Symbol(",") => {}
            Token::Symbol(")") => return Ok(values),
            other => return Err(unexpected(other, "',' or ')'")),
        }
    }
}

fn unexpected(token: Token<'_>, expected: &str) -> Error {
    let found = match token {
        Token::Word(text) | Token::Symbol(text) => text,
        Token::End => "",
    };
    Error(format!(
        "unable to parse requirement: found '{found}', expected: {expected}"
    ))
}
