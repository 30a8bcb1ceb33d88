//! What holds for every value and for every sequence of bytes.

use crate::samples::{
    alice, any_claims, any_keys_failed, any_keys_request, any_stage_request, any_verify_refused,
    any_verify_request,
};
use jacamar_contract::claims::Claims;
use jacamar_contract::frame::{self, Assembler, HEADER_BYTES, PAYLOAD_MAX_BYTES, Payload};
use jacamar_contract::keys::{KeysAnswer, KeysFailed, KeysFetched, KeysRequest};
use jacamar_contract::stage_request::StageRequest;
use jacamar_contract::verify::{VerifyAnswer, VerifyRefused, VerifyRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

fn round_trip<P: Payload + PartialEq + std::fmt::Debug>(value: P) -> Result<(), TestCaseError> {
    let frame = frame::encode(&value).expect("good");
    prop_assert!(frame.len() <= HEADER_BYTES + PAYLOAD_MAX_BYTES);
    prop_assert_eq!(frame::decode::<P>(&frame), Ok(value));
    Ok(())
}

/// A flipped byte is an error or another value: never the same value, never a panic.
fn flip<P: Payload + PartialEq + std::fmt::Debug>(value: P, at: usize, by: u8) -> Result<(), TestCaseError> {
    let mut frame = frame::encode(&value).expect("good");
    let at = at % frame.len();
    *frame.get_mut(at).expect("within the frame") ^= by;
    if let Ok(other) = frame::decode::<P>(&frame) {
        prop_assert_ne!(&other, &value);
        prop_assert_eq!(frame::encode(&other).expect("what was taken can be sent"), frame);
    }
    Ok(())
}

fn decode_everything(bytes: &[u8]) {
    let _claims = frame::decode::<Claims>(bytes).is_ok();
    let _request = frame::decode::<VerifyRequest>(bytes).is_ok();
    let _refused = frame::decode::<VerifyRefused>(bytes).is_ok();
    let _keys = frame::decode::<KeysRequest>(bytes).is_ok();
    let _fetched = frame::decode::<KeysFetched>(bytes).is_ok();
    let _failed = frame::decode::<KeysFailed>(bytes).is_ok();
    let _answer = VerifyAnswer::decode(bytes).is_ok();
    let _answer = KeysAnswer::decode(bytes).is_ok();
    let _stage = StageRequest::decode(bytes).is_ok();
}

proptest! {
    #[test]
    fn claims_come_back(value in any_claims()) { round_trip(value)?; }

    #[test]
    fn a_verify_request_comes_back(value in any_verify_request()) { round_trip(value)?; }

    #[test]
    fn a_verify_refusal_comes_back(value in any_verify_refused()) { round_trip(value)?; }

    #[test]
    fn a_keys_request_comes_back(value in any_keys_request()) { round_trip(value)?; }

    #[test]
    fn a_keys_failure_comes_back(value in any_keys_failed()) { round_trip(value)?; }

    #[test]
    fn a_stage_request_comes_back(value in any_stage_request(0)) { round_trip(value)?; }

    #[test]
    fn a_script_comes_back(script in vec(any::<u8>(), 0..2000), value in any_stage_request(0)) {
        let value = StageRequest { script_bytes: script.len() as u64, ..value };
        let container = value.encode(&script).expect("good");
        prop_assert_eq!(StageRequest::decode(&container), Ok((value, script.as_slice())));
    }

    #[test]
    fn a_flipped_byte_of_claims(value in any_claims(), at in any::<usize>(), by in 1_u8..) {
        flip(value, at, by)?;
    }

    #[test]
    fn a_flipped_byte_of_a_request(value in any_verify_request(), at in any::<usize>(), by in 1_u8..) {
        flip(value, at, by)?;
    }

    #[test]
    fn a_flipped_byte_of_a_keys_request(value in any_keys_request(), at in any::<usize>(), by in 1_u8..) {
        flip(value, at, by)?;
    }

    #[test]
    fn a_flipped_byte_of_a_refusal(value in any_verify_refused(), at in any::<usize>(), by in 1_u8..) {
        flip(value, at, by)?;
    }

    #[test]
    fn a_flipped_byte_of_a_stage_request(value in any_stage_request(0), at in any::<usize>(), by in 1_u8..) {
        flip(value, at, by)?;
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in vec(any::<u8>(), 0..600)) {
        decode_everything(&bytes);
    }

    #[test]
    fn any_payload_is_decoded_without_a_panic(kind in 1_u16..9, payload in vec(any::<u8>(), 0..600)) {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let header = [b"JCMR".as_slice(), &1_u16.to_be_bytes(), &kind.to_be_bytes(), &length].concat();
        decode_everything(&[header, payload].concat());
    }

    #[test]
    fn a_spliced_frame_is_decoded_without_a_panic(at in any::<usize>(), bytes in vec(any::<u8>(), 0..40)) {
        let claims = Claims::new(alice()).expect("well-formed");
        let mut frame = frame::encode(&claims).expect("good");
        let at = at % frame.len();
        let end = frame.len().min(at + bytes.len());
        frame.splice(at..end, bytes);
        decode_everything(&frame);
    }

    #[test]
    fn an_assembler_holds_no_more_than_a_frame(pieces in vec(vec(any::<u8>(), 0..200), 0..20)) {
        let mut assembler = Assembler::default();
        assembler.push(b"JCMR\0\x01\0\x02\0\0\0\x40").expect("a header");
        let mut taken = HEADER_BYTES;
        for piece in &pieces {
            taken += assembler.push(piece).expect("the header is good");
        }
        prop_assert!(taken <= HEADER_BYTES + 0x40);
        prop_assert_eq!(assembler.is_complete(), taken == HEADER_BYTES + 0x40);
    }
}
