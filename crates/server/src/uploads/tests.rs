//! Who may put a file where, who may read it, and when it goes.

use axum::http::HeaderValue;

use super::*;

fn headers(key: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}")).unwrap())])
}

/// A claim for a file of this name, by an owner with this key.
fn claim(uploads: &Uploads, key: &str, name: &str) -> Claim {
    let certificate = uploads.certify(uploads.owner(&headers(key)));
    Claim {
        access_key_id: ACCESS_KEY_ID.into(),
        key: format!("{}/{name}", certificate.folder),
        policy: certificate.policy,
        signature: certificate.signature,
    }
}

async fn put(uploads: &Arc<Uploads>, claim: &Claim, bytes: &[u8]) -> Result<(), Refusal> {
    let mut incoming = uploads.start(claim).await?;
    for piece in bytes.chunks(1000) {
        incoming.write(piece).await?;
    }
    incoming.finish().await
}

async fn get(uploads: &Uploads, key: &str, owner: &str) -> Result<Vec<u8>, Refusal> {
    uploads.read(key, &uploads.owner(&headers(owner)), 1 << 20).await
}

fn files(uploads: &Uploads) -> usize {
    let store = uploads.store();
    store.folder.as_ref().map_or(0, |folder| std::fs::read_dir(folder.path()).unwrap().count())
}

#[tokio::test]
async fn a_file_is_its_owner_s() {
    let uploads = Uploads::new(Limits::default());
    let claim = claim(&uploads, "sk-one", "my picture ä..b.png");
    assert_eq!(put(&uploads, &claim, &[7; 2500]).await, Ok(()));
    assert_eq!(get(&uploads, &claim.key, "sk-one").await, Ok(vec![7; 2500]));
    assert_eq!(get(&uploads, &claim.key, "sk-two").await, Err(Refusal::DownloadFailed));
    assert_eq!(get(&uploads, "ocellus/none/x.png", "sk-one").await, Err(Refusal::DownloadFailed));
    let owner = uploads.owner(&headers("sk-one"));
    assert_eq!(uploads.read(&claim.key, &owner, 2499).await, Err(Refusal::MediaTooLarge));
    // The policy, which everybody can read, does not hold the key.
    assert!(!owner.0.contains("sk-one"));
}

#[cfg(unix)]
#[tokio::test]
async fn other_users_of_the_machine_see_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let uploads = Uploads::new(Limits::default());
    put(&uploads, &claim(&uploads, "sk", "a.png"), b"x").await.unwrap();
    let store = uploads.store();
    let folder = store.folder.as_ref().unwrap().path();
    assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_file_may_come_twice_but_not_change() {
    let uploads = Uploads::new(Limits::default());
    let claim = claim(&uploads, "sk", "a.png");
    assert_eq!(put(&uploads, &claim, b"one").await, Ok(()));
    assert_eq!(put(&uploads, &claim, b"one").await, Ok(()));
    assert_eq!(put(&uploads, &claim, b"two").await, Err(Refusal::UploadExists));
    assert_eq!(get(&uploads, &claim.key, "sk").await, Ok(b"one".to_vec()));
    assert_eq!(files(&uploads), 1);
}

#[tokio::test]
async fn certificates_can_t_be_bent() {
    let uploads = Uploads::new(Limits::default());
    let good = claim(&uploads, "sk", "a.png");
    let check = async |change: &dyn Fn(&mut Claim), reason| {
        let mut claim = good.clone();
        change(&mut claim);
        let refused = put(&uploads, &claim, b"x").await;
        assert_eq!(refused, Err(Refusal::UploadForbidden { reason }), "{claim:?}");
    };
    let signature = "The signature does not match.";
    check(&|claim| claim.access_key_id.clear(), signature).await;
    check(&|claim| claim.signature.clear(), signature).await;
    check(&|claim| claim.signature = "not base64".into(), signature).await;
    check(&|claim| claim.signature = claim.signature.replacen(|_| true, "A", 3), signature).await;
    check(&|claim| claim.policy.push('A'), signature).await;
    check(&|claim| claim.policy.clear(), signature).await;
    let other = self::claim(&Uploads::new(Limits::default()), "sk", "a.png");
    check(&|claim| *claim = other.clone(), signature).await;
    let key = "The policy does not allow this key.";
    let folder = good.key.strip_suffix("/a.png").unwrap();
    for bad in ["", "/", "a.png", "/etc/passwd", "ocellus/a.png", "../a.png"] {
        check(&|claim| claim.key = bad.into(), key).await;
    }
    for bad in ["", "/", "a.png", "/../a.png", "/a/../../b", "/a\\..\\b", "/..", "/a\0b", "/a\nb"] {
        check(&|claim| claim.key = format!("{folder}{bad}"), key).await;
    }
    check(&|claim| claim.key = format!("{folder}/{}", "a".repeat(1024)), key).await;
    assert_eq!(files(&uploads), 0);

    let uploads = Uploads::new(Limits { certificate: Duration::ZERO, ..Limits::default() });
    let late = put(&uploads, &self::claim(&uploads, "sk", "a.png"), b"x").await;
    assert_eq!(late, Err(Refusal::UploadForbidden { reason: "The policy has expired." }));
}

#[tokio::test]
async fn sizes_are_bounded() {
    let limits = Limits { file_bytes: 3000, owner_bytes: 15_000, all_bytes: 25_000, ..Limits::default() };
    let uploads = Uploads::new(limits);
    let claims = ["a", "b", "c"].map(|name| claim(&uploads, "sk-one", name));
    assert_eq!(put(&uploads, &claims[0], &[0; 3001]).await, Err(Refusal::BodyTooLarge { limit_bytes: 3000 }));
    assert_eq!(files(&uploads), 0);
    // Two of them with their overhead fit, three do not, unless one was used and may go.
    assert_eq!(put(&uploads, &claims[0], &[0; 3000]).await, Ok(()));
    assert_eq!(put(&uploads, &claims[1], &[0; 3000]).await, Ok(()));
    assert_eq!(put(&uploads, &claims[2], &[0; 3000]).await, Err(Refusal::UploadsFull));
    assert_eq!(files(&uploads), 2);
    assert!(get(&uploads, &claims[1].key, "sk-one").await.is_ok());
    assert_eq!(put(&uploads, &claims[2], &[0; 3000]).await, Ok(()));
    assert_eq!(get(&uploads, &claims[1].key, "sk-one").await, Err(Refusal::DownloadFailed));
    // Another owner has room of its own, until all together have none.
    assert_eq!(put(&uploads, &claim(&uploads, "sk-two", "a"), &[0; 3000]).await, Ok(()));
    assert_eq!(put(&uploads, &claim(&uploads, "sk-three", "a"), &[0; 3000]).await, Err(Refusal::UploadsFull));
    assert_eq!(files(&uploads), 3);
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let uploads = Uploads::new(Limits::default());
    let mut incoming = uploads.start(&claim(&uploads, "sk", "a")).await.unwrap();
    incoming.write(b"half").await.unwrap();
    assert_eq!((files(&uploads), uploads.store().total), (1, 4 + OVERHEAD_BYTES));
    drop(incoming);
    assert_eq!((files(&uploads), uploads.store().total), (0, 0));
}

#[tokio::test]
async fn nothing_is_kept_for_ever() {
    let uploads = Uploads::new(Limits::default());
    let claim = claim(&uploads, "sk", "a.png");
    put(&uploads, &claim, b"x").await.unwrap();
    let folder = uploads.store().folder.as_ref().unwrap().path().to_owned();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(48 * 3600 - 1)).await;
    assert_eq!(files(&uploads), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((files(&uploads), uploads.store().charged.len()), (0, 0));
    assert_eq!(get(&uploads, &claim.key, "sk").await, Err(Refusal::DownloadFailed));
    drop(uploads);
    assert!(!folder.exists());
}
