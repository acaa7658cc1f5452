//! Mutants as switches: one program holds all of them, and a variable says which one is on.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::Span;
use serde::Deserialize;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Arm, BinOp, Block, Expr, ImplItemFn, ItemFn, ItemMod, Pat, PatGuard, ReturnType, Signature,
    Stmt, TraitItemFn, Type, parse_quote, parse_str,
};

/// What is appended to the root of the crate.
pub const SWITCH: &str = r#"
extern crate std;
#[doc(hidden)]
pub fn mutant(number: u32) -> bool {
    static ON: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *ON.get_or_init(|| std::env::var("MUTANT").ok().and_then(|on| on.parse().ok()).unwrap_or(0)) == number
}
"#;

/// A mutant, as `cargo mutants --list --json` tells of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    pub name: String,
    pub file: String,
    genre: String,
    replacement: String,
    span: Place,
    /// Its number among all, from 1.
    #[serde(skip)]
    pub number: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Place {
    start: Position,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    line: usize,
    column: usize,
}

impl Position {
    fn of(span: Span) -> Position {
        let start = span.start();
        Position { line: start.line, column: start.column + 1 }
    }
}

/// The text of a file with these mutants behind switches, and which ones are in: not those in
/// constants and constant functions, where nothing can be switched.
pub fn with_switches(text: &str, mutants: &[Mutant]) -> syn::Result<(String, BTreeSet<u32>)> {
    let mut file = syn::parse_file(text)?;
    let mut places = BTreeMap::<Position, Vec<&Mutant>>::new();
    for mutant in mutants {
        places.entry(mutant.span.start).or_default().push(mutant);
    }
    let mut switches = Switches { places, done: BTreeSet::new() };
    switches.visit_file_mut(&mut file);
    Ok((prettyplease::unparse(&file), switches.done))
}

struct Switches<'a> {
    places: BTreeMap<Position, Vec<&'a Mutant>>,
    done: BTreeSet<u32>,
}

impl<'a> Switches<'a> {
    fn at(&mut self, place: Position, genre: &str) -> Vec<&'a Mutant> {
        let found = self.places.get(&place).into_iter().flatten();
        let found: Vec<_> = found.filter(|mutant| mutant.genre == genre).copied().collect();
        self.done.extend(found.iter().map(|mutant| mutant.number));
        found
    }

    /// Another value in place of a function's body.
    fn body(&mut self, sig: &Signature, block: &mut Block, start: Option<Position>) {
        let hidden =
            matches!(&sig.output, ReturnType::Type(_, of) if matches!(**of, Type::ImplTrait(_)));
        let Some(start) = start.filter(|_| !hidden) else { return };
        let mut statements = Vec::new();
        for mutant in self.at(start, "FnValue") {
            let (number, value) = (mutant.number, mutant.replacement.as_str());
            let value = if value == "()" { "" } else { value };
            let text = format!("if crate::mutant({number}) {{ return {value}; }}");
            match parse_str::<Stmt>(&text) {
                Ok(statement) => statements.push(statement),
                Err(_) => drop(self.done.remove(&number)),
            }
        }
        statements.append(&mut block.stmts);
        block.stmts = statements;
    }

    fn binary(&mut self, expr: &mut Expr) {
        let Expr::Binary(binary) = expr else { return };
        let place = Position::of(binary.op.span());
        // A chain of `let`s can't stand in parentheses.
        let is_chain = has_let(&binary.left) || has_let(&binary.right);
        visit_mut::visit_expr_binary_mut(self, binary);
        if is_chain {
            return;
        }
        let (left, right) = (binary.left.clone(), binary.right.clone());
        let is_statement = is_assignment(&binary.op);
        for mutant in self.at(place, "BinaryOperator") {
            let number = mutant.number;
            let Ok(op) = parse_str::<BinOp>(&mutant.replacement) else {
                self.done.remove(&number);
                continue;
            };
            *expr = if is_statement {
                parse_quote!(if crate::mutant(#number) { #left #op #right; } else { #expr; })
            } else {
                parse_quote!((if crate::mutant(#number) { #left #op #right } else { #expr }))
            };
        }
    }

    fn unary(&mut self, expr: &mut Expr) {
        let Expr::Unary(unary) = expr else { return };
        let place = Position::of(unary.op.span());
        visit_mut::visit_expr_unary_mut(self, unary);
        let inner = unary.expr.clone();
        for mutant in self.at(place, "UnaryOperator") {
            let number = mutant.number;
            *expr = parse_quote!((if crate::mutant(#number) { #inner } else { #expr }));
        }
    }

    fn arms(&mut self, expr: &mut Expr) {
        let Expr::Match(whole) = expr else { return };
        let places: Vec<_> = whole
            .arms
            .iter()
            .map(|arm| {
                let guard = guard(arm).map(|guard| (Position::of(guard.span()), has_let(&guard)));
                (Position::of(arm.span()), guard)
            })
            .collect();
        visit_mut::visit_expr_match_mut(self, whole);
        for (arm, (place, guard_place)) in whole.arms.iter_mut().zip(places) {
            if guard_place.is_some_and(|(_, has_let)| has_let) {
                continue;
            }
            if let Some((place, _)) = guard_place {
                for mutant in self.at(place, "MatchArmGuard") {
                    let (number, before) = (mutant.number, guard(arm));
                    let Ok(value) = parse_str::<Expr>(&mutant.replacement) else { continue };
                    let new: Expr =
                        parse_quote!((if crate::mutant(#number) { #value } else { #before }));
                    set_guard(arm, new);
                }
            }
            for mutant in self.at(place, "MatchArm") {
                let number = mutant.number;
                let new: Expr = match guard(arm) {
                    Some(before) => parse_quote!(!crate::mutant(#number) && #before),
                    None => parse_quote!(!crate::mutant(#number)),
                };
                set_guard(arm, new);
            }
        }
    }
}

impl VisitMut for Switches<'_> {
    // Nothing in there can be switched.
    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_item_mod_mut(&mut self, module: &mut ItemMod) {
        if module.ident != "tests" {
            visit_mut::visit_item_mod_mut(self, module);
        }
    }

    fn visit_item_fn_mut(&mut self, function: &mut ItemFn) {
        if function.sig.constness.is_none() {
            let start = begin(&function.block);
            visit_mut::visit_item_fn_mut(self, function);
            self.body(&function.sig, &mut function.block, start);
        }
    }

    fn visit_impl_item_fn_mut(&mut self, function: &mut ImplItemFn) {
        if function.sig.constness.is_none() {
            let start = begin(&function.block);
            visit_mut::visit_impl_item_fn_mut(self, function);
            self.body(&function.sig, &mut function.block, start);
        }
    }

    fn visit_trait_item_fn_mut(&mut self, function: &mut TraitItemFn) {
        let start = function.default.as_ref().and_then(begin);
        visit_mut::visit_trait_item_fn_mut(self, function);
        if let Some(block) = &mut function.default {
            self.body(&function.sig, block, start);
        }
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Binary(_) => self.binary(expr),
            Expr::Unary(_) => self.unary(expr),
            Expr::Match(_) => self.arms(expr),
            _ => visit_mut::visit_expr_mut(self, expr),
        }
    }
}

fn begin(block: &Block) -> Option<Position> {
    block.stmts.first().map(|first| Position::of(first.span()))
}

fn guard(arm: &Arm) -> Option<Expr> {
    match &arm.pat {
        Pat::Guard(guarded) => Some((*guarded.guard).clone()),
        _ => None,
    }
}

fn set_guard(arm: &mut Arm, guard: Expr) {
    let pat = match std::mem::replace(&mut arm.pat, parse_quote!(_)) {
        Pat::Guard(guarded) => guarded.pat,
        other => Box::new(other),
    };
    let guard = Box::new(guard);
    let if_token = Default::default();
    arm.pat = Pat::Guard(PatGuard { attrs: Vec::new(), pat, if_token, guard });
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

fn is_assignment(op: &BinOp) -> bool {
    use BinOp::*;
    matches!(
        op,
        AddAssign(_)
            | SubAssign(_)
            | MulAssign(_)
            | DivAssign(_)
            | RemAssign(_)
            | BitXorAssign(_)
            | BitAndAssign(_)
            | BitOrAssign(_)
            | ShlAssign(_)
            | ShrAssign(_)
    )
}
