//! What only this server gives: sizes in the answer, and coordinates of the original picture.

use super::*;

async fn answer(engine: &Arc<Scripted>, extra: Value) -> String {
    let app = engine.app_with(|settings| settings.extensions = true);
    read(send(app, post(CHAT, chat(extra).to_string())).await).await
}

#[tokio::test]
async fn sizes_in_a_whole_answer() {
    insta::assert_snapshot!(answer(&Scripted::saying(&["A dog."]), json!({})).await);
}

#[tokio::test]
async fn sizes_in_the_first_chunk() {
    let extra = json!({"stream": true, "stream_options": {"include_usage": true}});
    insta::assert_snapshot!(answer(&Scripted::saying(&["A", " dog."]), extra).await);
}

#[tokio::test]
async fn no_sizes_without_pictures() {
    let started = Event::Started(Started { prompt: PROMPT, media: Vec::new() });
    let engine = Scripted::new([started, finished(FinishReason::Stop)].map(Step::Event).into());
    assert!(!answer(&engine, json!({})).await.contains("ocellus"));
}

#[tokio::test]
async fn original_coordinates() {
    let engine = Scripted::saying(&["{\"bbox_2d\": [6", "02, 3, 1204", ", 812", "]}"]);
    let seen = answer(&engine, json!({"coordinates": "seen"})).await;
    assert!(seen.contains(r#"{\"bbox_2d\": [602, 3, 1204, 812]}"#), "{seen}");
    let original = answer(&engine, json!({"coordinates": "original"})).await;
    assert!(original.contains(r#"{\"bbox_2d\": [1024, 5, 2048, 1365]}"#), "{original}");
    insta::assert_snapshot!(answer(&engine, json!({"coordinates": "original", "stream": true})).await);
    assert!(answer(&engine, json!({"coordinates": "pixels"})).await.starts_with("400 "));
}

#[tokio::test]
async fn pictures_of_different_scale() {
    let sizes = [(100, 100), (100, 200)];
    let media = sizes.map(|original| MediaSize { original, seen: (112, 112), frames: 1, tokens: 16 });
    let started = Event::Started(Started { prompt: PROMPT, media: media.into() });
    let engine = Scripted::new(vec![Step::Event(started), Step::Hang]);
    // Refused before anything is sent, also for a stream; and the engine is told to stop.
    let refused = answer(&engine, json!({"coordinates": "original", "stream": true})).await;
    assert!(refused.starts_with("400 ") && refused.contains("the same scale"), "{refused}");
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_native_dialect_tells_the_same() {
    let path = "/api/v1/services/aigc/multimodal-generation/generation";
    let engine = Scripted::saying(&["{\"bbox_2d\": [6", "02, 3, 1204", ", 812", "]}"]);
    let ask = async |parameters: Value, stream: bool| {
        let app = engine.app_with(|settings| settings.extensions = true);
        let messages = json!([{"role": "user", "content": [{"text": "Where?"}]}]);
        let body = json!({"model": "eye", "input": {"messages": messages}, "parameters": parameters});
        let mut request = post(path, body.to_string());
        if stream {
            request.headers_mut().insert("x-dashscope-sse", "enable".parse().unwrap());
        }
        read(send(app, request).await).await
    };
    insta::assert_snapshot!("native_whole", ask(json!({}), false).await);
    let original = ask(json!({"coordinates": "original"}), false).await;
    assert!(original.contains(r#"{\"bbox_2d\": [1024, 5, 2048, 1365]}"#), "{original}");
    let streamed = ask(json!({"coordinates": "original", "incremental_output": true}), true).await;
    insta::assert_snapshot!("native_streamed", streamed);
}
