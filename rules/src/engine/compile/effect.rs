//! `setvar` and the other actions that change a transaction.

use super::super::collections::Collection;
use super::super::macros::Macro;
use super::super::number::{Operand, canonical, integer};
use super::super::ruleset::{Assign, Effect, Key, Place};
use super::super::variable::Variable;
use super::Compiler;
use super::catalogue::Catalogue;
use crate::seclang::ast::{Action, Spanned};

impl Compiler<'_> {
    /// Compiles the effects of one rule, in its order.
    pub(super) fn effects(
        &mut self,
        list: &[Spanned<Action>],
        catalogue: &Catalogue,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        for action in list {
            let effect = self.effect(action, catalogue);
            effects.extend(self.check(action.node.argument_at, effect).flatten());
        }
        effects
    }

    fn effect(
        &mut self,
        action: &Spanned<Action>,
        catalogue: &Catalogue,
    ) -> Result<Option<Effect>, String> {
        let name = action.node.name.as_str();
        if name == "sanitisematched" || name == "sanitisematchedbytes" {
            return Ok(Some(Effect::MaskMatched));
        }
        let argument = action
            .node
            .argument
            .as_deref()
            .ok_or_else(|| format!("{name} needs an argument: {name}:..."))?;
        Ok(Some(match name {
            "setvar" => self.setvar(argument)?,
            "setenv" => self.setenv(argument)?,
            "expirevar" => self.expirevar(argument)?,
            "deprecatevar" => self.deprecatevar(argument)?,
            "initcol" => self.initcol(argument)?,
            "setsid" => Effect::Open(Collection::Session, self.text(argument)?),
            "setuid" => Effect::Open(Collection::User, self.text(argument)?),
            "setrsc" => Effect::Open(Collection::Resource, self.text(argument)?),
            "sanitisearg" => mask(Variable::Args, argument),
            "sanitiserequestheader" => mask(Variable::RequestHeaders, argument),
            "sanitiseresponseheader" => mask(Variable::ResponseHeaders, argument),
            _ => {
                return Ok(self
                    .control(argument, action.node.argument_at, catalogue)?
                    .map(Effect::Ctl));
            }
        }))
    }

    fn text(&mut self, text: &str) -> Result<Macro, String> {
        Macro::parse(text, &mut self.names)
    }

    /// `[!]COLLECTION.NAME[=[+|-]VALUE]`.
    fn setvar(&mut self, argument: &str) -> Result<Effect, String> {
        let argument = argument.trim();
        if let Some(unset) = argument.strip_prefix('!') {
            return Ok(Effect::Set(self.place(unset)?, Assign::Unset));
        }
        let Some((name, value)) = assignment(argument) else {
            return Ok(Effect::Set(self.place(argument)?, Assign::Number(1)));
        };
        let place = self.place(name)?;
        let assign = match value.as_bytes().first() {
            Some(b'+') => Assign::Add(Operand::of(self.text(&value[1..])?)),
            Some(b'-') => Assign::Subtract(Operand::of(self.text(&value[1..])?)),
            _ => self.assign(value)?,
        };
        Ok(Effect::Set(place, assign))
    }

    fn assign(&mut self, value: &str) -> Result<Assign, String> {
        let text = self.text(value)?;
        match text.constant().and_then(canonical) {
            Some(number) => Ok(Assign::Number(number)),
            None => Ok(Assign::Text(text)),
        }
    }

    fn place(&mut self, name: &str) -> Result<Place, String> {
        let (collection, member) = name
            .split_once(['.', ':'])
            .ok_or_else(|| format!("'{name}' names no variable of a collection: write tx.name"))?;
        if member.is_empty() {
            return Err(format!(
                "'{name}' names no variable of a collection: write {name}name"
            ));
        }
        if collection.eq_ignore_ascii_case("tx") {
            let text = self.text(member)?;
            return match text.constant() {
                Some(_) => Ok(Place::Tx(self.names.slot(member)?)),
                None => Ok(Place::TxNamed(text)),
            };
        }
        Ok(Place::Persistent(
            persistent(collection)?,
            self.text(member)?,
        ))
    }

    fn setenv(&mut self, argument: &str) -> Result<Effect, String> {
        let (name, value) = assignment(argument).unwrap_or((argument, "1"));
        Ok(Effect::SetEnv(self.text(name)?, self.text(value)?))
    }

    /// `COLLECTION.NAME=SECONDS`.
    fn expirevar(&mut self, argument: &str) -> Result<Effect, String> {
        let (name, seconds) =
            assignment(argument).ok_or("expirevar needs seconds: expirevar:ip.name=60")?;
        let (collection, member) = name
            .split_once('.')
            .ok_or("expirevar needs a variable: expirevar:ip.name=60")?;
        let seconds = Operand::of(self.text(seconds)?);
        Ok(Effect::Expire(
            persistent(collection)?,
            self.text(member)?,
            seconds,
        ))
    }

    /// `COLLECTION.NAME=N/SECONDS`.
    fn deprecatevar(&mut self, argument: &str) -> Result<Effect, String> {
        const FORM: &str = "deprecatevar needs a number and seconds: deprecatevar:ip.name=60/300";
        let (name, pace) = assignment(argument).ok_or(FORM)?;
        let (collection, member) = name.split_once('.').ok_or(FORM)?;
        let (by, period) = pace.split_once('/').ok_or(FORM)?;
        let period = u64::try_from(integer(period.as_bytes()))
            .ok()
            .filter(|p| *p > 0)
            .ok_or(FORM)?;
        let by = integer(by.as_bytes());
        Ok(Effect::Deprecate {
            collection: persistent(collection)?,
            name: self.text(member)?,
            by,
            period,
        })
    }

    fn initcol(&mut self, argument: &str) -> Result<Effect, String> {
        let (collection, key) =
            assignment(argument).ok_or("initcol needs a key: initcol:ip=%{REMOTE_ADDR}")?;
        Ok(Effect::Open(persistent(collection)?, self.text(key)?))
    }
}

fn mask(variable: Variable, name: &str) -> Effect {
    Effect::Mask(
        variable,
        Key::Name(name.to_ascii_lowercase().into_bytes().into()),
    )
}

/// Splits at the first `=` outside of a macro.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let equals = from + text[from..].find('=')?;
        match text[from..equals].rfind("%{").and_then(|open| {
            text[from + open..]
                .find('}')
                .map(|close| from + open + close)
        }) {
            Some(close) if close > equals => from = close,
            _ => return Some((&text[..equals], &text[equals + 1..])),
        }
    }
}

fn persistent(name: &str) -> Result<Collection, String> {
    Collection::named(name.trim()).ok_or_else(|| format!("'{name}' is no collection that rules can write; they are tx, ip, global, session, user and resource"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equals_sign_in_a_macro_is_none() {
        assert_eq!(assignment("tx.a=b=c"), Some(("tx.a", "b=c")));
        assert_eq!(
            assignment("tx.a_%{args.x=y}=1"),
            Some(("tx.a_%{args.x=y}", "1"))
        );
        assert_eq!(assignment("tx.a"), None);
    }
}
