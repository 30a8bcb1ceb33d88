//! `jacamar verify`: the only parser of the runner's response file and of tokens. It has no network.
//!
//! Exit code 0: the answer was written, claims or a refusal. Any other: there is no answer.
//!
//! Each step takes what the step before believed: [`Response`] → [`Token`] (alleged) → its payload, which only a
//! good signature gives out → [`Statement`] → `Claims`. No claim is parsed before the signature was checked.

mod binding;
mod key_set;
mod response;
mod statement;
#[cfg(test)]
mod tests;
mod token;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use jacamar_contract::claims::Claims;
use jacamar_contract::keys::KEYS_MAX_BYTES;
use jacamar_contract::verify::{
    RESPONSE_MAX_BYTES, VerifyAnswer, VerifyRefused, VerifyRequest, VerifyRule, descriptor,
};

use crate::answer;
use crate::inherited::{Inherited, InheritedError, Secret};
use key_set::KeySet;
use response::Response;
use statement::Statement;
use token::Token;

const REQUEST: Inherited = Inherited { number: descriptor::REQUEST, name: "request" };
const RESPONSE: Inherited = Inherited { number: descriptor::RESPONSE, name: "response file" };
const KEYS: Inherited = Inherited { number: descriptor::KEYS, name: "key set" };

/// Answers the request; exit code 0.
pub(crate) fn verify() -> anyhow::Result<u8> {
    let request: VerifyRequest = REQUEST.frame()?;
    let answer = match question(&request)? {
        Ok(claims) => VerifyAnswer::Claims(Box::new(claims)),
        Err(refused) => VerifyAnswer::Refused(refused),
    };
    answer::write(&answer.encode().context("the answer does not fit into a frame")?)?;
    Ok(0)
}

/// Reads response file and key set, and wipes both before it returns.
fn question(request: &VerifyRequest) -> Result<Result<Claims, VerifyRefused>, InheritedError> {
    let response = match bounded(RESPONSE, RESPONSE_MAX_BYTES, VerifyRule::ResponseTooLarge)? {
        Ok(response) => response,
        Err(refused) => return Ok(Err(refused)),
    };
    let keys = match bounded(KEYS, KEYS_MAX_BYTES, VerifyRule::KeysUnreadable)? {
        Ok(keys) => keys,
        Err(refused) => return Ok(Err(refused)),
    };
    // A clock before 1970 makes every token one of the future.
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(judge(request, response.as_bytes(), keys.as_bytes(), now_s))
}

fn bounded(
    from: Inherited,
    max_bytes: usize,
    rule: VerifyRule,
) -> Result<Result<Secret, VerifyRefused>, InheritedError> {
    match from.read(max_bytes) {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(InheritedError::TooLarge { .. }) => Ok(Err(VerifyRefused::new(rule, from.name))),
        Err(error) => Err(error),
    }
}

/// The claims of the job's token, or why they are not believed.
fn judge(request: &VerifyRequest, response: &[u8], keys: &[u8], now_s: u64) -> Result<Claims, VerifyRefused> {
    let response = Response::parse(response)?;
    let token = Token::parse(response.token(&request.token_variable)?, &request.token_variable)?;
    let key = KeySet::parse(keys)?.key(&token)?;
    let payload = token.payload(&key)?;
    let statement = Statement::parse(&payload, &request.token_variable)?;
    statement.check_origin(request, now_s)?;
    let fields = statement.into_fields(request, &response)?;
    binding::check(&fields, request, &response)?;
    Claims::new(fields).map_err(|invalid| VerifyRefused {
        rule: VerifyRule::ClaimInvalid,
        object: format!("claim {}", invalid.field),
        cause: invalid.problem.to_string(),
    })
}

/// Whether these bytes can only be read as an object: serde takes a list for a structure as well.
fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}
