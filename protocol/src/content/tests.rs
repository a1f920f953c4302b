//! The content of messages, against the examples of draft-ietf-mimi-content-08 (`examples/*.cbor` of its repository).

use data_encoding::HEXLOWER;

use super::*;

/// What recurs in the examples: the map of extensions by sender, the head of a Markdown part, two message ids.
const RECURRING: &[(&str, &str)] = &[
    (
        "<ALICE>",
        "a20178206d696d693a2f2f6578616d706c652e636f6d2f752f616c6963652d736d6974680278256d696d693a\
         2f2f6578616d706c652e636f6d2f722f656e67696e656572696e675f7465616d",
    ),
    (
        "<BOB>",
        "a201781e6d696d693a2f2f6578616d706c652e636f6d2f752f626f622d6a6f6e65730278256d696d693a2f2f\
         6578616d706c652e636f6d2f722f656e67696e656572696e675f7465616d",
    ),
    (
        "<CATHY>",
        "a20178256d696d693a2f2f6578616d706c652e636f6d2f752f63617468792d77617368696e67746f6e027825\
         6d696d693a2f2f6578616d706c652e636f6d2f722f656e67696e656572696e675f7465616d",
    ),
    (
        "<MARKDOWN>",
        "85016001781e746578742f6d61726b646f776e3b76617269616e743d47464d2d4d494d49",
    ),
    (
        "<ORIGINAL_ID>",
        "5820017ce54837404c3696e0c747b985cb172716d0ed0a3d249ca63ace7d82a096f4",
    ),
    (
        "<REPLY_ID>",
        "5820015354973c2b65ca937bf1e035ae53a5ab80e947afa43d46920d4202e5cc0b27",
    ),
    (
        "<PLAIN>",
        "7818746578742f706c61696e3b636861727365743d7574662d38",
    ),
];

/// The examples whose kind is supported.
const TEXTS: &[(&str, &str)] = &[
    (
        "original",
        "87505eed9406c2545547ab6f09f20a18b003f640f6f6<ALICE><MARKDOWN>583948692065766572796f6e652\
         c207765206a75737420736869707065642072656c6561736520322e302e205f5f476f6f642020776f726b5f5\
         f21",
    ),
    (
        "reply",
        "875011a458c73b8dd2cf404db4b378b8fe4df640f6<ORIGINAL_ID><BOB><MARKDOWN>58215269676874206f\
         6e21205f436f6e67726174756c6174696f6e735f2027616c6c21",
    ),
    (
        "mention",
        "875004f290e215d0f82d1750bfa8b7dc089df640f6<ORIGINAL_ID><CATHY><MARKDOWN>58584b75646f7320\
         746f205b40416c69636520536d6974685d286d696d693a2f2f6578616d706c652e636f6d2f752f616c696365\
         2d736d6974682920666f72206d616b696e67207468652072656c656173652068617070656e21",
    ),
];

/// The examples whose kind is not.
const OTHERS: &[(&str, &str)] = &[
    (
        "reaction",
        "8750d37bc0e6a8b4f04e9e6382375f587bf6f640f6<ORIGINAL_ID><CATHY>85026001<PLAIN>43e29da4",
    ),
    (
        "edit",
        "8750b8c2e6d8800ecf45df39be6c45f4c042<REPLY_ID>40f6<ORIGINAL_ID><BOB><MARKDOWN>5822526967\
         6874206f6e21205f436f6e67726174756c6174696f6e735f207927616c6c21",
    ),
    (
        "delete",
        "87500a590d73b2c7761c39168be5ebf7f2e6<REPLY_ID>40f6<ORIGINAL_ID><BOB>83016000",
    ),
    (
        "unlike",
        "8750c5ba86dc9fd272e58ca52ec805b7919958200158c4288911e50a8f6be3f47746b6682f10fd91bc8c0555\
         7aa589a3157aff6840f6<ORIGINAL_ID><CATHY>83026000",
    ),
    (
        "expiring",
        "875033be993eb39f418f9295afc2ae160d2df64082f41a62036674f6<ALICE><MARKDOWN>58505f5f2a56504\
         e20474f494e4720444f574e2a5f5f2049276d207265626f6f74696e67207468652056504e20696e2074656e2\
         06d696e7574657320756e6c65737320616e796f6e65206f626a656374732e",
    ),
    (
        "mention-html",
        "875015d9705fd5bf5e02b0af47c85f8b98fef640f6<ORIGINAL_ID><CATHY>8501600177746578742f68746d\
         6c3b636861727365743d7574662d38586a3c703e4b75646f7320746f203c6120687265663d226d696d693a2f\
         2f6578616d706c652e636f6d2f752f616c6963652d736d697468223e40416c69636520536d6974683c2f613e\
         20666f72206d616b696e67207468652072656c656173652068617070656e213c2f703e",
    ),
    (
        "attachment",
        "875018fac6371e4e53f1aeaf8a013155c166f640f6f6<BOB>8f0662656e0269766964656f2f6d7034782b687\
         47470733a2f2f6578616d706c652e636f6d2f73746f726167652f386b7342346253727252452e6d7034001a2\
         a36ced1015021399320958a6f4c745dde670d95e0d84cc86cf2c33f21527d1dd76f5b400158209ab17a8cf08\
         90baaae7ee016c7312fcc080ba46498389458ee44f0276e783163781c3220686f757273206f66206b6579207\
         369676e696e6720766964656f6b62696766696c652e6d7034",
    ),
    (
        "conferencing",
        "8750678ac6cd54de049c3e9665cd212470faf647466f6f20313138f6f6<ALICE>8f07600260781e687474707\
         33a2f2f6578616d706c652e636f6d2f6a6f696e2f31323334350000004040400040781b4a6f696e207468652\
         0466f6f2031313820636f6e666572656e636560",
    ),
    (
        "multipart-1",
        "8750261c953e178af653fe3d42641b91d814f640f6f6<ALICE>850160030082<MARKDOWN>4a232057656c636\
         f6d652185016001782e6170706c69636174696f6e2f766e642e6578616d706c6576656e646f722d66616e637\
         92d696d2d6d6573736167654fdc861ebaa718fd7c3ca159f71a2001",
    ),
    (
        "multipart-2",
        "87508528dc2d92e4f1944d62042907ab94d0f640f6f6<ALICE>85026003028385026001<PLAIN>43e29da485\
         026001<PLAIN>44f09fa5b385026001<PLAIN>44f09fa49e",
    ),
    (
        "multipart-3",
        "8750b8362793168d18c049b882d4642a2274f640f6f6<ALICE>8501600300828501600302828501600300828\
         50162656e0177746578742f68746d6c3b636861727365743d7574662d3858613c68746d6c3e3c626f64793e3\
         c68313e57656c636f6d65213c2f68313e0a3c696d67207372633d226369643a35406c6f63616c2e696e76616\
         c69642220616c743d2257656c636f6d6520696d616765222f3e0a3c2f626f64793e3c2f68746d6c3e8501626\
         6720177746578742f68746d6c3b636861727365743d7574662d3858653c68746d6c3e3c626f64793e3c68313\
         e4269656e76656e7565213c2f68313e0a3c696d67207372633d226369643a35406c6f63616c2e696e76616c6\
         9642220616c743d22496d616765206269656e76656e7565222f3e0a3c2f626f64793e3c2f68746d6c3e85046\
         00169696d6167652f67696650dc861ebaa718fd7c3ca159f71a2001a78501600302828501600300828501626\
         56e0177746578742f68746d6c3b636861727365743d7574662d3858623c68746d6c3e3c626f64793e3c68313\
         e57656c636f6d65213c2f68313e0a3c696d67207372633d226369643a3130406c6f63616c2e696e76616c696\
         42220616c743d2257656c636f6d6520696d616765222f3e0a3c2f626f64793e3c2f68746d6c3e85016266720\
         177746578742f68746d6c3b636861727365743d7574662d3858663c68746d6c3e3c626f64793e3c68313e426\
         9656e76656e7565213c2f68313e0a3c696d67207372633d226369643a3130406c6f63616c2e696e76616c696\
         42220616c743d22496d616765206269656e76656e7565222f3e0a3c2f626f64793e3c2f68746d6c3e8504600\
         169696d6167652f706e6750fa444237451a05a72bb0f67037cc1669",
    ),
];

fn example(hex: &str) -> Vec<u8> {
    let hex = RECURRING.iter().fold(hex.to_owned(), |hex, (name, value)| {
        hex.replace(name, value)
    });
    HEXLOWER.decode(hex.as_bytes()).expect("hex")
}

fn text_of(bytes: &[u8]) -> TextMessage {
    match decode(bytes) {
        Ok(Content::Text(message)) => message,
        other => panic!("not a text: {other:?}"),
    }
}

/// REQ-095: the draft's text messages decode, and encode again to the same bytes.
#[test]
fn the_drafts_texts_are_read_and_written_byte_for_byte() {
    let shown = TEXTS.iter().map(|(name, hex)| {
        let bytes = example(hex);
        let message = text_of(&bytes);
        assert_eq!(message.encode(), bytes, "{name}");
        assert_eq!(message.media_type, MediaType::Markdown, "{name}");
        (message.text, message.in_reply_to.map(|id| id[..2].to_vec()))
    });
    let answers = Some(vec![0x01, 0x7c]);
    let mention =
        "Kudos to [@Alice Smith](mimi://example.com/u/alice-smith) for making the release happen!";
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            (
                "Hi everyone, we just shipped release 2.0. __Good  work__!".to_owned(),
                None
            ),
            (
                "Right on! _Congratulations_ 'all!".to_owned(),
                answers.clone()
            ),
            (mention.to_owned(), answers),
        ]
    );
}

/// REQ-095: of the draft's other messages it is seen that there is one that cannot be shown.
#[test]
fn the_drafts_other_messages_are_unsupported() {
    for (name, hex) in OTHERS {
        assert_eq!(decode(&example(hex)), Ok(Content::Unsupported), "{name}");
    }
}

/// REQ-095: what this version sends is a `mimiContent` of the draft's layout, written out here.
#[test]
fn a_sent_text_has_the_drafts_layout() {
    let bytes = encode_text([7; 16], "grüß dich");
    let expected = format!(
        "8750{}f640f6f6a085016001<PLAIN>4b6772c3bcc39f2064696368",
        "07".repeat(16)
    );
    assert_eq!(bytes, example(&expected));
    assert_eq!(text_of(&bytes), TextMessage::plain([7; 16], "grüß dich"));
    assert_ne!(bytes, encode_text([8; 16], "grüß dich"));
}

#[test]
fn garbage_is_refused_and_other_items_are_unsupported() {
    let bytes = encode_text([7; 16], "x");
    assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(ContentError));
    assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(ContentError));
    assert_eq!(decode(&[]), Err(ContentError));
    assert_eq!(decode(&[0x80]), Ok(Content::Unsupported));
}

/// A text message with these extensions, in hexadecimal.
fn with_extensions(hex: &str) -> Vec<u8> {
    let head = format!("8750{}f640f6f6", "07".repeat(16));
    example(&format!("{head}{hex}85016001<PLAIN>4178"))
}

/// REQ-140: one message has one encoding; every other one is refused.
#[test]
fn only_the_deterministic_encoding_is_accepted() {
    assert!(matches!(
        decode(&with_extensions("a2010a020b")),
        Ok(Content::Text(_))
    ));
    for (what, extensions) in [
        ("keys out of order", "a2020b010a"),
        ("a key twice", "a2010a010a"),
        ("a map without a length", "bf010a020bff"),
        ("an integer that is too long", "a201180a020b"),
        ("a length that is too long", "b80101f6"),
        ("a float that is too long", "a101fb3ff0000000000000"),
        ("a big number that is small", "a101c24105"),
        ("a map inside that is out of order", "a101a2020b010a"),
    ] {
        assert_eq!(
            decode(&with_extensions(extensions)),
            Err(ContentError),
            "{what}"
        );
    }
}

/// REQ-095: the draft's limits of extensions; what breaks them is not shown.
#[test]
fn extensions_beyond_the_drafts_data_model_are_unsupported() {
    let shown = |extensions: &str| match decode(&with_extensions(extensions)) {
        Ok(content) => content != Content::Unsupported,
        Err(error) => panic!("{extensions}: {error}"),
    };
    // The map, two arrays and a tag: four levels. One array more makes five.
    assert!(shown("a11901008181d8206178"));
    assert!(!shown("a1190100818181d8206178"));
    assert!(shown("a11b001fffffffffffff00"));
    assert!(!shown("a11b002000000000000000"));
    assert!(shown(&format!("a178ff{}00", "61".repeat(255))));
    assert!(!shown(&format!("a1790100{}00", "61".repeat(256))));
    assert!(!shown("a16000"));
    assert!(!shown("a1416100"));
    assert!(!shown("80"));
}
