//! What holds for any bytes: no panic, and no claims but those that GitLab signed.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{id_token, judge, keys, request, response, second};

/// A good token and the second it was issued.
static GOOD: LazyLock<(String, u64)> = LazyLock::new(|| {
    let token = id_token();
    (token.sign().expect("signed"), second(&token, "iat"))
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_verify(
        file in prop::collection::vec(any::<u8>(), 0..300),
        set in prop::collection::vec(any::<u8>(), 0..300),
        text in "[ -~]{0,200}",
    ) {
        let (good, now_s) = &*GOOD;
        let now_s = *now_s;
        prop_assert!(judge(&request(), &file, &keys(), now_s).is_err());
        prop_assert!(judge(&request(), &response(good), &set, now_s).is_err());
        prop_assert!(judge(&request(), &response(&text), &keys(), now_s).is_err());
    }

    #[test]
    fn one_changed_byte_of_a_token_never_verifies(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (good, now_s) = &*GOOD;
        let mut bytes = good.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        prop_assert!(judge(&request(), &response(&text), &keys(), *now_s).is_err());
    }

    #[test]
    fn one_changed_byte_of_a_file_changes_no_claim(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        in_keys in any::<bool>(),
    ) {
        let (text, now_s) = &*GOOD;
        let (mut file, mut set) = (response(text), keys());
        let now_s = *now_s;
        let good = judge(&request(), &file, &set, now_s).expect("good");
        let bytes = if in_keys { &mut set } else { &mut file };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(claims) = judge(&request(), &file, &set, now_s) {
            prop_assert_eq!(claims, good);
        }
    }
}
