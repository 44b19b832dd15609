//! Percent-encoding as the signatures of the API want it.

use std::fmt::Write as _;

use super::refusal::Refusal;

/// RFC 3986: all but letters, digits and `-_.~` as `%XX`.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _infallible = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// `a=1&b=%20` as pairs; `+` is a space.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let pieces = text.split('&').filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// In the order of names, then of values, and encoded: both signatures are made over it. The order
/// is not that of the encoded text, where `a.10=` is before `a.1=`.
pub(crate) fn canonical(pairs: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = pairs.iter().collect();
    sorted.sort();
    let encoded = |(name, value): &(String, String)| format!("{}={}", encode(name), encode(value));
    let encoded: Vec<_> = sorted.into_iter().map(encoded).collect();
    encoded.join("&")
}

fn decode(text: &str) -> Result<String, Refusal> {
    let wrong = || Refusal::invalid("query", format!("{text:?} is not percent-encoded UTF-8"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits =
                    [rest.next(), rest.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
                let [Some(high), Some(low)] = digits else { return Err(wrong()) };
                u8::try_from(high * 16 + low).map_err(|_too_large| wrong())?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_not_text| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let text = "c 1/2+3=4*~ä&%";
        let found = pairs(&format!("a={}&b=&c", encode(text))).unwrap();
        let expected = [("a", text), ("b", ""), ("c", "")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(encode("a b~"), "a%20b~");
        assert_eq!(pairs("a=b+c").unwrap()[0].1, "b c");
        for wrong in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert_eq!(pairs(wrong).unwrap_err().code, "InvalidParameter", "{wrong}");
        }
    }

    #[test]
    fn the_order_is_that_of_names_and_then_of_values() {
        let pairs =
            [("b", "1"), ("a.2", "x"), ("a.10", "y"), ("a", "z"), ("a.1", "2"), ("a.1", "10")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(canonical(&pairs), "a=z&a.1=10&a.1=2&a.10=y&a.2=x&b=1");
    }
}
