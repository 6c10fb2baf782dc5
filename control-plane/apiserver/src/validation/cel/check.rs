//! The type of an expression, and what is wrong with it: names that nobody declared, functions
//! that do not take what they are given, members that a type does not have.

use std::collections::BTreeSet;

use ::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators,
};

use super::environment::{Environment, Overload};
use super::types::{Bindings, Type};

/// What is wrong with an expression, and with which part of it.
pub(super) struct Fault {
    /// The part, once it is known.
    pub(super) at: Option<u64>,
    pub(super) text: String,
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self { at: None, text }
    }
}

type Checked = Result<Type, Fault>;

/// Reads one expression.
pub(super) struct Checker<'a> {
    environment: &'a Environment,
    /// The variables of macros, the innermost last.
    local: Vec<(String, Type)>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            local: Vec::new(),
        }
    }

    /// The type of an expression.
    pub(super) fn infer(&mut self, expression: &IdedExpr) -> Checked {
        let found = self.infer_parts(expression);
        found.map_err(|fault| Fault {
            at: fault.at.or(Some(expression.id)),
            ..fault
        })
    }

    fn infer_parts(&mut self, expression: &IdedExpr) -> Checked {
        match &expression.expr {
            Expr::Literal(literal) => Ok(literal_type(literal)),
            Expr::Ident(name) => self.variable(name).ok_or_else(|| undeclared(name)),
            Expr::Select(select) => self.infer_select(select),
            Expr::Call(call) => self.infer_call(call),
            Expr::List(list) => {
                let mut items = Type::Unset;
                let optional_indices: BTreeSet<&usize> = list.optional_indices.iter().collect();
                for (i, element) in list.elements.iter().enumerate() {
                    let mut of = self.infer(element)?;
                    if optional_indices.contains(&i) {
                        of = optional_value(&of)
                            .ok_or_else(|| unlike(&optional(Type::Unset), &of))?;
                    }
                    items = items.join(&of).ok_or_else(|| unlike(&items, &of))?;
                }
                Ok(Type::list(items))
            }
            Expr::Map(map) => {
                let (mut keys, mut values) = (Type::Unset, Type::Unset);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        continue;
                    };
                    let (mut key, mut value) = (self.infer(&entry.key)?, self.infer(&entry.value)?);
                    // These are no keys when it is evaluated; and a type that has another one
                    // twice would double with every map of maps.
                    if matches!(key, Type::List(_) | Type::Map(..) | Type::Optional(_)) {
                        key = Type::Dyn;
                    }
                    if entry.optional {
                        value = optional_value(&value)
                            .ok_or_else(|| unlike(&optional(Type::Unset), &value))?;
                    }
                    keys = keys.join(&key).ok_or_else(|| unlike(&keys, &key))?;
                    values = values.join(&value).ok_or_else(|| unlike(&values, &value))?;
                }
                Ok(Type::Map(Box::new(keys), Box::new(values)))
            }
            Expr::Struct(made) => {
                let name = made.type_name.as_str();
                if !self.environment.can_make(name) {
                    return Err(undeclared(name));
                }
                for entry in &made.entries {
                    let EntryExpr::StructField(field) = &entry.expr else {
                        continue;
                    };
                    let wanted = self.environment.member(name, &field.field);
                    let wanted = wanted.ok_or_else(|| undefined(&field.field))?;
                    let mut given = self.infer(&field.value)?;
                    if field.optional {
                        given = optional_value(&given)
                            .ok_or_else(|| unlike(&optional(Type::Unset), &given))?;
                    }
                    if !wanted.accepts(&given, &mut Bindings::new()) {
                        return Err(unlike(&wanted, &given));
                    }
                }
                Ok(Type::named(name))
            }
            Expr::Comprehension(macro_) => self.infer_comprehension(macro_),
            Expr::Unspecified => Err("the expression is empty".to_owned().into()),
        }
    }

    fn variable(&self, name: &str) -> Option<Type> {
        let local = self.local.iter().rev().find(|(local, _)| local == name);
        local
            .map(|(_, of)| of.clone())
            .or_else(|| self.environment.variable(name))
    }

    /// The type of an expression in which macros have declared variables.
    fn within(&mut self, variables: &[(&str, Type)], expression: &IdedExpr) -> Checked {
        let outside = self.local.len();
        let variables = variables.iter();
        self.local
            .extend(variables.map(|(name, of)| ((*name).to_owned(), of.clone())));
        let of = self.infer(expression);
        self.local.truncate(outside);
        of
    }

    fn infer_select(&mut self, select: &SelectExpr) -> Checked {
        if let Some(name) = path(&select.operand) {
            let root = name.split('.').next().unwrap_or_default();
            let shadowed = self.local.iter().any(|(local, _)| local == root);
            let whole = format!("{name}.{}", select.field);
            if !shadowed && let Some(of) = self.environment.variable(&whole) {
                return Ok(of);
            }
        }
        let operand = self.infer(&select.operand)?;
        let of = self.member(&operand, &select.field)?;
        Ok(if select.test { Type::Bool } else { of })
    }

    fn member(&self, of: &Type, field: &str) -> Checked {
        match of {
            Type::Dyn | Type::Any | Type::Unset => Ok(Type::Dyn),
            Type::Map(_, values) => Ok((**values).clone()),
            Type::Optional(value) => Ok(optional(self.member(value, field)?)),
            Type::Named(name) => {
                let member = self.environment.member(name, field);
                member.ok_or_else(|| undefined(field))
            }
            other => Err(format!("type '{other}' does not support field selection").into()),
        }
    }

    fn infer_call(&mut self, call: &CallExpr) -> Checked {
        let (name, arguments) = (call.func_name.as_str(), call.args.as_slice());
        if name == operators::OPT_SELECT
            && let [operand, field] = arguments
            && let Expr::Literal(LiteralValue::String(field)) = &field.expr
        {
            let operand = self.infer(operand)?;
            return Ok(optional(self.member(&operand, field)?));
        }
        if let Some(of) = self.infer_bind(call) {
            return of;
        }
        let Some(target) = &call.target else {
            let given = self.infer_all(arguments)?;
            return self.apply(name, None, &given);
        };
        if let Some(space) = path(target)
            && self.variable(&space).is_none()
        {
            let whole = format!("{space}.{name}");
            if !self.environment.overloads(&whole).is_empty() {
                let given = self.infer_all(arguments)?;
                return self.apply(&whole, None, &given);
            }
        }
        let receiver = self.infer(target)?;
        if let Some(of) = self.infer_macro(name, &receiver, arguments) {
            return of;
        }
        let given = self.infer_all(arguments)?;
        self.apply(name, Some(&receiver), &given)
    }

    /// `cel.bind(name, value, expression)`, where the environment has it.
    fn infer_bind(&mut self, call: &CallExpr) -> Option<Checked> {
        let (Some(target), [name, value, expression]) = (&call.target, &call.args[..]) else {
            return None;
        };
        let (Expr::Ident(space), Expr::Ident(name)) = (&target.expr, &name.expr) else {
            return None;
        };
        let is_bind = space == "cel" && call.func_name == "bind" && self.environment.has_bind();
        is_bind.then(|| {
            let of = self.infer(value)?;
            self.within(&[(name, of)], expression)
        })
    }

    fn infer_all(&mut self, expressions: &[IdedExpr]) -> Result<Vec<Type>, Fault> {
        expressions.iter().map(|one| self.infer(one)).collect()
    }

    /// The type of what a function makes of its arguments; `dyn` where ways to call it that make
    /// different types all fit.
    fn apply(&self, name: &str, receiver: Option<&Type>, given: &[Type]) -> Checked {
        // All comparisons take the same.
        let declared = match name {
            operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
                operators::LESS
            }
            name => name,
        };
        let overloads = self.environment.overloads(declared);
        if overloads.is_empty() {
            return Err(undeclared(name));
        }
        let mut results = overloads
            .iter()
            .filter_map(|overload| result(overload, receiver, given));
        let Some(first) = results.next() else {
            let given: Vec<String> = given.iter().map(Type::to_string).collect();
            let receiver = receiver.map(|of| format!("{of}.")).unwrap_or_default();
            let given = given.join(", ");
            let fault =
                format!("found no matching overload for '{name}' applied to '{receiver}({given})'");
            return Err(fault.into());
        };
        Ok(if results.all(|other| other == first) {
            first
        } else {
            Type::Dyn
        })
    }

    /// What the macros of the parser became: a loop over a range that gathers a value.
    fn infer_comprehension(&mut self, comprehension: &ComprehensionExpr) -> Checked {
        let range = self.infer(&comprehension.iter_range)?;
        let (first, second) = range_types(&range)?;
        let mut variables = vec![(comprehension.iter_var.as_str(), first)];
        if let Some(name) = &comprehension.iter_var2 {
            variables.push((name, second));
        }
        let gathered = comprehension.accu_var.as_str();
        let start = self.infer(&comprehension.accu_init)?;
        variables.push((gathered, start.clone()));
        let goes_on = self.within(&variables, &comprehension.loop_cond)?;
        if !Type::Bool.accepts(&goes_on, &mut Bindings::new()) {
            return Err(unlike(&Type::Bool, &goes_on));
        }
        let step = self.within(&variables, &comprehension.loop_step)?;
        let whole = start.join(&step).ok_or_else(|| unlike(&start, &step))?;
        self.within(&[(gathered, whole)], &comprehension.result)
    }

    /// The macros that the parser leaves as calls: those with two variables, those of optional
    /// values. None where the call is none of them.
    fn infer_macro(
        &mut self,
        name: &str,
        receiver: &Type,
        arguments: &[IdedExpr],
    ) -> Option<Checked> {
        let variable = |argument: &IdedExpr| match &argument.expr {
            Expr::Ident(name) => Some(name.clone()),
            _ => None,
        };
        if matches!(name, "optMap" | "optFlatMap") {
            let [bound, value] = arguments else {
                return None;
            };
            let (bound, inner) = (variable(bound)?, optional_value(receiver)?);
            let of = self.within(&[(&bound, inner)], value);
            return Some(of.map(|of| match name {
                "optFlatMap" => optional(of),
                _ => Type::Optional(Box::new(of)),
            }));
        }
        if name == "sortBy"
            && let [bound, key] = arguments
        {
            let (bound, items) = (variable(bound)?, item_type(receiver)?);
            let of = self.within(&[(&bound, items)], key);
            return Some(of.map(|_| receiver.clone()));
        }
        let (first, second, rest) = match arguments {
            [first, second, rest @ ..] => (variable(first)?, variable(second)?, rest),
            _ => return None,
        };
        if !matches!(
            (name, rest.len()),
            ("all" | "exists" | "existsOne" | "exists_one", 1)
                | (
                    "transformList" | "transformMap" | "transformMapEntry",
                    1 | 2
                )
        ) {
            return None;
        }
        Some(self.infer_pairs(name, receiver, [&first, &second], rest))
    }

    /// A macro over the indices and items of a list, or the keys and values of a map.
    fn infer_pairs(
        &mut self,
        name: &str,
        receiver: &Type,
        [first, second]: [&str; 2],
        rest: &[IdedExpr],
    ) -> Checked {
        let (key, value) = pair_types(receiver)?;
        let variables = [(first, key.clone()), (second, value)];
        let (conditions, result) = match rest {
            [filter, result] => (Some(filter), result),
            [result, ..] => (None, result),
            [] => return Err(undeclared(name)),
        };
        if let Some(filter) = conditions {
            let of = self.within(&variables, filter)?;
            if !Type::Bool.accepts(&of, &mut Bindings::new()) {
                return Err(unlike(&Type::Bool, &of));
            }
        }
        let of = self.within(&variables, result)?;
        match name {
            "transformList" => Ok(Type::list(of)),
            "transformMap" => Ok(Type::Map(Box::new(key), Box::new(of))),
            "transformMapEntry" => Ok(of),
            _ if Type::Bool.accepts(&of, &mut Bindings::new()) => Ok(Type::Bool),
            _ => Err(unlike(&Type::Bool, &of)),
        }
    }
}

/// What one way to call a function makes of these arguments, where it takes them.
fn result(overload: &Overload, receiver: Option<&Type>, given: &[Type]) -> Option<Type> {
    if overload.receiver.is_some() != receiver.is_some() || overload.arguments.len() != given.len()
    {
        return None;
    }
    let mut bindings = Bindings::new();
    let wanted = overload.receiver.iter().chain(&overload.arguments);
    let fits = wanted
        .zip(receiver.into_iter().chain(given))
        .all(|(wanted, given)| wanted.accepts(given, &mut bindings));
    fits.then(|| overload.result.bound(&bindings))
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

/// `a.b.c`, where an expression is names and dots only.
fn path(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            let before = path(&select.operand)?;
            Some(format!("{before}.{}", select.field))
        }
        _ => None,
    }
}

/// The types of the variables of a loop over a value: of one, or of the first of two, and of the
/// second.
fn range_types(range: &Type) -> Result<(Type, Type), Fault> {
    match range {
        Type::List(items) => Ok(((**items).clone(), (**items).clone())),
        Type::Map(keys, values) => Ok(((**keys).clone(), (**values).clone())),
        dynamic if dynamic.is_dynamic() => Ok((Type::Dyn, Type::Dyn)),
        other => {
            let detail = "cannot be range of a comprehension (must be list, map, or dynamic)";
            Err(format!("expression of type '{other}' {detail}").into())
        }
    }
}

/// The types of the two variables of a loop over a value.
fn pair_types(range: &Type) -> Result<(Type, Type), Fault> {
    let (first, second) = range_types(range)?;
    Ok(match range {
        Type::List(_) => (Type::Int, second),
        _ => (first, second),
    })
}

fn optional_value(of: &Type) -> Option<Type> {
    match of {
        Type::Optional(value) => Some((**value).clone()),
        dynamic => dynamic.is_dynamic().then_some(Type::Dyn),
    }
}

/// The type of a value that may be absent, of what may be absent already.
fn optional(of: Type) -> Type {
    match of {
        optional @ Type::Optional(_) => optional,
        other => Type::Optional(Box::new(other)),
    }
}

fn item_type(of: &Type) -> Option<Type> {
    match of {
        Type::List(items) => Some((**items).clone()),
        dynamic => dynamic.is_dynamic().then_some(Type::Dyn),
    }
}

fn undeclared(name: &str) -> Fault {
    format!("undeclared reference to '{name}' (in container '')").into()
}

fn undefined(field: &str) -> Fault {
    format!("undefined field '{field}'").into()
}

fn unlike(wanted: &Type, found: &Type) -> Fault {
    format!("expected type '{wanted}' but found '{found}'").into()
}
