//! From the token file's bytes to keys. No message repeats a value that may be a secret.

use std::fmt;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::credentials::Keys;

/// The length of an initialization vector, and of a block, in bytes.
const BLOCK: usize = 16;

/// What is wrong with a token file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFileFault {
    /// It is not there, or not for us.
    #[error("it cannot be read ({0})")]
    Unreadable(String),
    /// The disk did not answer before the call's deadline.
    #[error("it could not be read before the deadline")]
    TooSlow,
    /// It is something else.
    #[error("it has more than 64 KiB")]
    TooLarge,
    /// It is not JSON.
    #[error("it is not a JSON object (line {line}, column {column})")]
    NotJson {
        /// Where it ceases to be.
        line: usize,
        /// Where in that.
        column: usize,
    },
    /// A field does not say what it should.
    #[error("{field} {rule}")]
    Field {
        /// Which.
        field: TokenFileField,
        /// What it should be, and is not.
        rule: &'static str,
    },
    /// Its session has ended.
    #[error("expiration is {0}, which is over")]
    Expired(Timestamp),
    /// The cloud says that its session has ended.
    #[error("the cloud says that its session has expired, and the file has no other yet")]
    Refused,
}

/// A field of a token file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenFileField {
    /// `access.key.id`.
    AccessKeyId,
    /// `access.key.secret`.
    AccessKeySecret,
    /// `security.token`.
    SecurityToken,
    /// `expiration`.
    Expiration,
    /// `keyring`.
    Keyring,
}

impl TokenFileField {
    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccessKeyId => "access.key.id",
            Self::AccessKeySecret => "access.key.secret",
            Self::SecurityToken => "security.token",
            Self::Expiration => "expiration",
            Self::Keyring => "keyring",
        }
    }

    const fn fault(self, rule: &'static str) -> TokenFileFault {
        TokenFileFault::Field { field: self, rule }
    }
}

impl fmt::Display for TokenFileField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The keys, and until when they are.
pub(crate) fn decode(text: &[u8]) -> Result<(Keys, Timestamp), TokenFileFault> {
    let file: Map<String, Value> = match serde_json::from_slice(text) {
        Ok(Value::Object(file)) => file,
        Ok(_) => return Err(TokenFileFault::NotJson { line: 1, column: 1 }),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            return Err(TokenFileFault::NotJson { line, column });
        }
    };
    let key = said(&file, TokenFileField::Keyring)?.as_bytes();
    let open = |field| decrypt(key, field, said(&file, field)?);
    let keys = Keys {
        id: open(TokenFileField::AccessKeyId)?,
        secret: open(TokenFileField::AccessKeySecret)?.into(),
        token: Some(open(TokenFileField::SecurityToken)?.into()),
    };
    let field = TokenFileField::Expiration;
    let expires = said(&file, field)?.parse();
    Ok((keys, expires.map_err(|_wrong| field.fault("is not a time as in RFC 3339"))?))
}

fn said(file: &Map<String, Value>, field: TokenFileField) -> Result<&str, TokenFileFault> {
    match file.get(field.name()) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) => Err(field.fault("is empty")),
        Some(_) => Err(field.fault("is not a text")),
        None => Err(field.fault("is missing")),
    }
}

/// Base64 of an initialization vector and AES-CBC with the padding of PKCS#7.
fn decrypt(key: &[u8], field: TokenFileField, text: &str) -> Result<String, TokenFileFault> {
    let wrong = |rule| move |_error| field.fault(rule);
    let mut iv = STANDARD.decode(text.trim()).map_err(wrong("is not base64"))?;
    if iv.len() < 2 * BLOCK || !iv.len().is_multiple_of(BLOCK) {
        return Err(field.fault("is not two or more blocks of 16 bytes"));
    }
    let mut body = iv.split_off(BLOCK);
    let iv: [u8; BLOCK] = iv.try_into().map_err(|_long| field.fault("has no first block"))?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let opened = cipher(key)?.decrypt(&mut body, context);
    let length = opened.map_err(|_secret| field.fault("is not encrypted with keyring"))?.len();
    body.truncate(length);
    let text = String::from_utf8(body)
        .map_err(|_secret| field.fault("is no text when decrypted with keyring"))?;
    if text.is_empty() { Err(field.fault("is empty when decrypted")) } else { Ok(text) }
}

fn cipher(key: &[u8]) -> Result<PaddedBlockDecryptingKey, TokenFileFault> {
    let wrong = || TokenFileField::Keyring.fault("is not 16, 24 or 32 bytes long");
    let algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        32 => &AES_256,
        _ => return Err(wrong()),
    };
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_secret| wrong())?;
    PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_secret| wrong())
}
