use super::*;
use crate::protocol::event::MAX_LOOK;
use crate::protocol::frame::{MAX_HEAD, encode};
use proptest::prelude::*;

fn client(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, opcode, payload, Some([1, 2, 3, 4]));
    out
}

fn fragment(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![if fin { 0x80 } else { 0 } | opcode, 0x80 | payload.len() as u8, 9, 8, 7, 6];
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], [9, 8, 7, 6], 0);
    out
}

/// Feeds `bytes` in pieces cut at `cuts`, as a relay would, and returns what passed and what was taken.
fn relay(scanner: &mut Scanner, bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<Vec<u8>>), FrameError> {
    let (mut passed, mut taken, mut carry) = (Vec::new(), Vec::new(), Vec::<u8>::new());
    let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut from = 0;
    for to in cuts {
        carry.extend_from_slice(&bytes[from..to]);
        from = to;
        let buf = std::mem::take(&mut carry);
        let mut at = 0;
        loop {
            let found = scanner.scan(&buf[at..]);
            passed.extend_from_slice(&buf[at..at + found.pass]);
            at += found.used;
            match found.stop {
                Stop::End => break,
                Stop::Partial => {
                    carry = buf[at..].to_vec();
                    let most = if scanner.event.is_some() { MAX_LOOK } else { MAX_PREFIX };
                    assert!(carry.len() < MAX_HEAD + most, "a partial head is short");
                    break;
                }
                Stop::More => {}
                Stop::Message(m) => taken.push(m.data),
                Stop::Broken(e) => return Err(e),
            }
        }
        assert!(at + carry.len() == buf.len());
    }
    Ok((passed, taken))
}

fn sio(writer: Writer) -> Scanner {
    Scanner::new(writer, Watch::SocketIo, 1_000_000, 0)
}

#[test]
fn connect_is_taken_out_and_the_rest_passes_as_it_came() {
    let mut bytes = client(Opcode::Text, b"42[\"a\"]");
    let event = bytes.clone();
    bytes.extend(client(Opcode::Text, b"40/admin,{\"token\":\"t\"}"));
    bytes.extend(client(Opcode::Text, b"3"));
    let (passed, taken) = relay(&mut sio(Writer::Client), &bytes, &[]).unwrap();
    assert_eq!(taken, vec![b"40/admin,{\"token\":\"t\"}".to_vec()]);
    assert_eq!(passed, [event, client(Opcode::Text, b"3")].concat());
}

#[test]
fn connect_in_fragments_with_a_ping_between_is_taken_out() {
    let mut bytes = fragment(false, 1, b"4");
    bytes.extend(client(Opcode::Ping, b"p"));
    bytes.extend(fragment(false, 0, b""));
    bytes.extend(fragment(true, 0, b"0{}"));
    for cut in 0..bytes.len() {
        let (passed, taken) = relay(&mut sio(Writer::Client), &bytes, &[cut]).unwrap();
        assert_eq!(taken, vec![b"40{}".to_vec()], "cut {cut}");
        assert_eq!(passed, client(Opcode::Ping, b"p"));
    }
}

#[test]
fn attachments_are_counted_and_a_stray_binary_message_is_refused() {
    let mut bytes = client(Opcode::Text, b"452-[\"x\",{},{}]");
    bytes.extend(client(Opcode::Binary, b"1"));
    let mut scanner = sio(Writer::Client);
    relay(&mut scanner, &bytes, &[]).unwrap();
    assert!(!scanner.between_packets());
    relay(&mut scanner, &client(Opcode::Text, b"bAQID"), &[]).unwrap();
    assert!(scanner.between_packets());
    assert_eq!(relay(&mut scanner, &client(Opcode::Binary, b"2"), &[]).unwrap_err(), FrameError::UnexpectedBinary);
}

#[test]
fn p35_broken_frames_are_refused_before_their_payload() {
    let cases: &[(&[u8], FrameError)] = &[
        (&[0x81, 0x01, b'x'], FrameError::Masking),
        (&[0xc1], FrameError::ReservedBits),
        (&[0x83, 0x80], FrameError::ReservedOpcode),
        (&[0x09, 0x80], FrameError::Control),
        (&[0x89, 0xfe, 0, 200], FrameError::Control),
        (&[0x81, 0xfe, 0, 5, 1, 2, 3, 4], FrameError::Length),
        (&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0], FrameError::Length),
        (&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
        (&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], FrameError::TooLong),
        (&[0x80, 0x80, 0, 0, 0, 0], FrameError::Order),
    ];
    for (bytes, error) in cases {
        assert_eq!(relay(&mut sio(Writer::Client), bytes, &[]).unwrap_err(), *error, "{bytes:?}");
    }
    let mut two_starts = fragment(false, 1, b"42[");
    two_starts.extend(fragment(true, 1, b"42["));
    assert_eq!(relay(&mut sio(Writer::Client), &two_starts, &[]).unwrap_err(), FrameError::Order);
    assert_eq!(relay(&mut sio(Writer::Server), &client(Opcode::Text, b"2"), &[]).unwrap_err(), FrameError::Masking);
}

#[test]
fn p35_a_message_in_fragments_is_bounded_as_a_whole() {
    let mut scanner = Scanner::new(Writer::Client, Watch::Frames, 10, 0);
    let mut bytes = fragment(false, 1, b"123456");
    bytes.extend(fragment(true, 0, b"78901"));
    assert_eq!(relay(&mut scanner, &bytes, &[]).unwrap_err(), FrameError::TooLong);
}

/// Text of which some server makes a CONNECT, and what no server reads: 45 and a count that is none.
const STRANGE: [&str; 14] = [
    "4",
    "4 ",
    "4 /admin,{\"token\":\"t\"}",
    "4\t{\"pid\":\"p\"}",
    "4\u{feff}{}",
    "4\u{660}/admin,{}",
    "4\"0/admin,{}\"",
    "47",
    "\u{664}0/admin,{}",
    "45",
    "45-[]",
    "4501-[]",
    "45\u{661}-[]",
    "451e1-[\"a\"]",
];

#[test]
fn p51_what_only_some_servers_take_for_a_packet_is_refused_from_a_client() {
    for text in STRANGE {
        for cut in 0..text.len() + 6 {
            let error = relay(&mut sio(Writer::Client), &client(Opcode::Text, text.as_bytes()), &[cut]).unwrap_err();
            assert_eq!(error, FrameError::Packet, "{text:?} cut at {cut}");
        }
        // In two pieces of which the first says too little it is taken whole, for the gate to judge.
        let whole = [fragment(false, 1, b""), fragment(true, 0, text.as_bytes())].concat();
        assert_eq!(relay(&mut sio(Writer::Client), &whole, &[]).unwrap(), (vec![], vec![text.into()]), "{text:?}");
        let mut frame = Vec::new();
        encode(&mut frame, Opcode::Text, text.as_bytes(), None);
        assert_eq!(relay(&mut sio(Writer::Server), &frame, &[]).unwrap().0, frame, "a server may say it");
        let mut raw = Scanner::new(Writer::Client, Watch::Frames, 1000, 0);
        assert!(relay(&mut raw, &client(Opcode::Text, text.as_bytes()), &[]).is_ok());
    }
    for text in ["", "42", "43/a,1[]", "450-[]", "4610-[]", "44{}", "2", "3probe", "5", "6"] {
        let bytes = client(Opcode::Text, text.as_bytes());
        assert_eq!(relay(&mut sio(Writer::Client), &bytes, &[]).unwrap().0, bytes, "{text:?}");
    }
}

#[test]
fn a_long_connect_from_a_client_is_refused_and_from_a_server_passes_unread() {
    let long = [b"40".to_vec(), vec![b' '; MAX_CAPTURE]].concat();
    assert_eq!(relay(&mut sio(Writer::Client), &client(Opcode::Text, &long), &[]).unwrap_err(), FrameError::TooLong);
    let mut frame = Vec::new();
    encode(&mut frame, Opcode::Text, &long, None);
    assert_eq!(relay(&mut sio(Writer::Server), &frame, &[]).unwrap().0, frame);
}

#[test]
fn an_event_for_the_gate_is_taken_out_wherever_it_is_cut() {
    let taking = || sio(Writer::Client).taking(Some(Arc::new(EventName::new("refresh"))));
    let (before, behind) = (client(Opcode::Text, b"42[\"refreshed\"]"), client(Opcode::Text, b"451-[\"a\",{}]"));
    for event in [
        "42[\"refresh\",\"t\"]".to_owned(),
        "42/admin, 7[ \"\\u0072efres\\u0068\",\"t\"]".to_owned(),
        "451-/a,[\"refresh\",{}]".to_owned(),
        format!("42/{},[\"refresh\"]", "n".repeat(200)),
    ] {
        let whole = [&before[..], &client(Opcode::Text, event.as_bytes()), &behind].concat();
        for cut in 0..whole.len() {
            let (passed, taken) = relay(&mut taking(), &whole, &[cut]).unwrap();
            assert_eq!(taken, [event.as_bytes()], "{event} cut at {cut}");
            assert_eq!(passed, [&before[..], &behind].concat());
        }
        for at in 0..event.len().min(100) {
            let (first, rest) = event.as_bytes().split_at(at);
            let mut parts = fragment(false, 1, first);
            parts.extend(client(Opcode::Ping, b""));
            parts.extend(rest.chunks(100).flat_map(|part| fragment(false, 0, part)));
            parts.extend(fragment(true, 0, b""));
            let (passed, taken) = relay(&mut taking(), &parts, &[parts.len() / 2]).unwrap();
            assert_eq!(taken, [event.as_bytes()], "{event} in pieces at {at}");
            assert_eq!(passed, client(Opcode::Ping, b""));
        }
    }
    for endless in [format!("42{}[\"refresh\"]", " ".repeat(5000)), format!("42/{},[\"a\"]", "n".repeat(5000))] {
        let bytes = client(Opcode::Text, endless.as_bytes());
        assert_eq!(relay(&mut taking(), &bytes, &[4000, 4090]).unwrap_err(), FrameError::Packet);
        assert!(relay(&mut sio(Writer::Client), &bytes, &[]).is_ok(), "nobody asks where there is no event");
    }
}

#[test]
fn the_application_is_active_with_each_part_of_what_it_says_and_nobody_else_is() {
    let mut scanner = sio(Writer::Client).taking(Some(Arc::new(EventName::new("refresh"))));
    let mut more = |bytes: &[u8]| {
        let before = scanner.activity();
        relay(&mut scanner, bytes, &[]).unwrap();
        scanner.activity() != before
    };
    let text = |text: &str| client(Opcode::Text, text.as_bytes());
    for quiet in ["2", "3", "3probe", "6", "40/a,{}", "41/a,", "42[\"refresh\",\"t\"]", "42/a,7[\"refresh\"]"] {
        assert!(!more(&text(quiet)), "{quiet}");
    }
    assert!(!more(&client(Opcode::Ping, b"are you there")));
    for said in ["42[\"a\"]", "43[]", "451-[{}]"] {
        assert!(more(&text(said)), "{said}");
    }
    assert!(more(&client(Opcode::Binary, b"attached")));
    // A slow one counts for as long as there is more of it.
    let slow = text(&format!("42[\"{}\"]", "x".repeat(100)));
    assert!(slow.chunks(20).all(&mut more));
    assert!(more(&fragment(false, 1, b"42[\"a\",")));
    assert!(!more(&client(Opcode::Ping, b"between")), "a control frame is no part of it");
    assert!(more(&fragment(false, 0, b"1,")));
    assert!(more(&fragment(true, 0, b"2]")));
    assert!(!more(&text("2")));
    let mut raw = Scanner::new(Writer::Client, Watch::Frames, 1000, 0);
    for (said, active) in [("2", false), ("3", false), ("22", true), ("4x", true), ("", true)] {
        let before = raw.activity();
        relay(&mut raw, &text(said), &[]).unwrap();
        assert_eq!(raw.activity() != before, active, "{said}");
    }
}

fn message() -> impl Strategy<Value = (Opcode, Vec<u8>)> {
    prop_oneof![
        "42\\[\"[a-z]{0,300}\"\\]".prop_map(|s| (Opcode::Text, s.into_bytes())),
        "40(/[a-z]{1,5},)?\\{\\}".prop_map(|s| (Opcode::Text, s.into_bytes())),
        "[236]".prop_map(|s| (Opcode::Text, s.into_bytes())),
        "41(/[a-z]{1,5},)?".prop_map(|s| (Opcode::Text, s.into_bytes())),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|v| (Opcode::Ping, v)),
    ]
}

proptest! {
    #[test]
    fn any_cut_of_any_traffic_gives_the_same(
        messages in proptest::collection::vec(message(), 1..20),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|(op, m)| client(*op, m)).collect();
        let is_taken = |m: &[u8]| m.starts_with(b"40") || m.starts_with(b"41");
        let want_taken: Vec<Vec<u8>> = messages.iter()
            .filter(|(op, m)| *op == Opcode::Text && is_taken(m)).map(|(_, m)| m.clone()).collect();
        let want_passed: Vec<u8> = messages.iter()
            .filter(|(op, m)| *op != Opcode::Text || !is_taken(m)).flat_map(|(op, m)| client(*op, m)).collect();
        let (passed, taken) = relay(&mut sio(Writer::Client), &bytes, &cuts).unwrap();
        prop_assert_eq!(taken, want_taken);
        prop_assert_eq!(passed, want_passed);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        cuts in proptest::collection::vec(any::<usize>(), 0..5),
        watch in prop_oneof![Just(Watch::Frames), Just(Watch::SocketIo)],
        writer in prop_oneof![Just(Writer::Client), Just(Writer::Server)],
    ) {
        let _ = relay(&mut Scanner::new(writer, watch, 200, 0), &bytes, &cuts);
    }
}
