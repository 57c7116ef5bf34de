use super::*;

#[test]
fn a_close_reason_is_cut_at_a_character() {
    let mut out = Vec::new();
    encode_close(&mut out, 4401, &"ä".repeat(100), None);
    let head = Head::parse(&out, Writer::Server).unwrap().unwrap();
    assert_eq!(head.len, 2 + 122);
    assert!(std::str::from_utf8(&out[4..]).is_ok());
}
