//! Requests that must not wait for each other.

#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use ocellus_engine::{
    Engine, Event, Events, ImagePart, Message, Options, Part, PixelLimits, Request, Role, Source,
};

/// A grey picture that takes a while to decode and resize, as a BMP of 24 bits without compression.
fn picture(side: u32) -> Arc<[u8]> {
    let pixels = vec![0x80; (side * side * 3) as usize];
    let mut file = b"BM".to_vec();
    for field in [54 + pixels.len() as u32, 0, 54, 40, side, side, 1 | 24 << 16, 0, pixels.len() as u32] {
        file.extend(field.to_le_bytes());
    }
    file.resize(54, 0);
    file.extend(pixels);
    file.into()
}

fn request(parts: Vec<Part>) -> Request {
    let message = Message { role: Role::User, parts, tool_calls: Vec::new() };
    Request { messages: vec![message], max_tokens: Some(1), ..Request::default() }
}

/// What has come already, without waiting.
fn next_now(events: &mut Events) -> Poll<Option<Event>> {
    pin!(events).poll_next(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn text_does_not_wait_for_pictures() {
    let source = Source::folder(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano"));
    let engine = Engine::load(&source, &Options::default(), &|_| {}).unwrap();
    let limits = PixelLimits { max_pixels: 3136, ..PixelLimits::HOSTED };
    let image = Part::Image(ImagePart { bytes: picture(2400), limits });
    // More than are decoded at the same time.
    let mut pictures: Vec<Events> = (0..6).map(|_| engine.submit(request(vec![image.clone()]))).collect();
    let mut text = engine.submit(request(vec![Part::Text("Hi".into())]));
    assert!(matches!(text.blocking_next(), Some(Event::Started(_))));
    assert!(next_now(pictures.last_mut().unwrap()).is_pending(), "the text has waited for the pictures");
    for mut events in pictures {
        assert!(matches!(events.blocking_next(), Some(Event::Started(_))));
    }
}
