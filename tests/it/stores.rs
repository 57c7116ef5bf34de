//! The connection to a Redis, with real servers that die, freeze, fail over and stand in a cluster.

use crate::support::certs::Certs;
use crate::support::redis::{Server, TIMEOUT, free_port, greet_and_be_asked, installed, open, write};
use crate::support::{ms, within};
use siogate::config::redis_url::RedisUrl;
use siogate::store::redis::Redis;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::time::{Instant, sleep};

/// What a timer may be late, on a clock that only waiting moves.
const ROUNDED: Duration = Duration::from_millis(2);

const MINUTE: Duration = Duration::from_secs(60);

/// From now on time passes by `advance`; where this is dropped, also by waiting.
#[allow(clippy::disallowed_methods)] // no work is done there
fn stand_still() -> std::sync::mpsc::Sender<()> {
    tokio::time::pause();
    let (on, still) = std::sync::mpsc::channel();
    // The clock does not move by itself while a blocking task is under way.
    tokio::task::spawn_blocking(move || still.recv());
    on
}

#[tokio::test]
async fn a_value_comes_with_its_time_to_live_and_never_longer_than_asked_for() {
    if !installed() {
        return;
    }
    let server = Server::start().await;
    let redis = server.redis();
    assert_eq!(redis.get("nothing", 10).await, Ok(None));
    redis.set("a", b"value", MINUTE).await.unwrap();
    let entry = redis.get("a", 10).await.unwrap().unwrap();
    assert_eq!(entry.value, b"value");
    assert!(entry.ttl.is_some_and(|ttl| ttl <= MINUTE && ttl > MINUTE / 2));
    assert_eq!(redis.get("a", 2).await.unwrap().unwrap().value, b"val");
    server.cli(&["SET", "for ever", ""]).await;
    let entry = redis.get("for ever", 10).await.unwrap().unwrap();
    assert_eq!((entry.value.len(), entry.ttl), (0, None));
    server.cli(&["LPUSH", "list", "x"]).await;
    assert!(redis.get("list", 10).await.is_err());
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn whoever_asks_while_the_line_is_made_waits_for_it() {
    if !installed() {
        return;
    }
    let server = Server::start().await;
    let redis = server.redis();
    let answers = futures_util::future::join_all((0..50).map(|_| redis.get("nothing", 10))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(None)), "{answers:?}");
    assert!(
        server.cli(&["INFO", "stats"]).await.contains("total_connections_received:2\r"),
        "one, and this question's"
    );
}

#[tokio::test]
async fn a_scan_finds_what_begins_with_the_prefix_whatever_it_holds() {
    if !installed() {
        return;
    }
    let server = Server::start().await;
    let redis = server.redis();
    for n in 0..1200 {
        redis.set(&format!("a*[{n}"), b"1", MINUTE).await.unwrap();
    }
    redis.set("abc[1", b"1", MINUTE).await.unwrap();
    let found = redis.scan("a*[").await.unwrap();
    assert_eq!(found.len(), 1200);
    assert!(found.contains(&"a*[1199".to_owned()));
}

#[tokio::test]
async fn subscribers_hear_what_is_published() {
    if !installed() {
        return;
    }
    let mut server = Server::start().await;
    let redis = server.redis();
    let mut heard = redis.subscribe("news").await.unwrap();
    redis.publish("other", b"no").await.unwrap();
    redis.publish("news", b"one").await.unwrap();
    assert_eq!(within("a message", heard.next()).await.as_deref(), Some(&b"one"[..]));
    server.kill().await;
    assert_eq!(within("the end", heard.next()).await, None);
    assert!(redis.subscribe("news").await.is_err());
}

#[tokio::test]
async fn c04_a_server_that_dies_is_an_error_at_once_and_found_again_when_it_is_back() {
    if !installed() {
        return;
    }
    let mut server = Server::start().await;
    let redis = server.redis();
    redis.set("a", b"1", MINUTE).await.unwrap();
    server.kill().await;
    for _ in 0..20 {
        assert!(redis.get("a", 10).await.is_err());
    }
    server.revive().await;
    let back = async {
        while redis.ping().await.is_err() {
            tokio::time::sleep(ms(20)).await
        }
    };
    within("the store is back", back).await;
    assert_eq!(redis.get("a", 10).await, Ok(None));
    // Restarted between two questions: the first one after it is answered.
    server.kill().await;
    server.revive().await;
    assert_eq!(redis.get("a", 10).await, Ok(None));
}

#[tokio::test]
async fn c04_a_server_that_does_not_answer_is_waited_for_no_longer_than_allowed() {
    if !installed() {
        return;
    }
    let server = Server::start().await;
    let redis = server.redis();
    redis.ping().await.unwrap();
    server.freeze(true);
    // Only waiting takes time from here on: a busy machine changes nothing.
    tokio::time::pause();
    let question = async |n: u32| {
        // Some while the line is dumb, some while a new one is made, some while there is none.
        sleep(TIMEOUT * n / 10).await;
        let asked = Instant::now();
        (redis.get("a", 10).await, asked.elapsed())
    };
    let answers = futures_util::future::join_all((0..40).map(question)).await;
    tokio::time::resume();
    server.freeze(false);
    for (n, (answer, took)) in answers.iter().enumerate() {
        assert!(answer.is_err(), "{n}: {answer:?}");
        assert!(*took <= TIMEOUT + ROUNDED, "{n}: {took:?}");
    }
    let back = async {
        while redis.ping().await.is_err() {
            tokio::time::sleep(ms(20)).await
        }
    };
    within("the store is back", back).await;
}

#[tokio::test]
async fn c04_a_line_that_is_lost_half_way_is_made_anew_within_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let accepted = async || within("a connection", listener.accept()).await.unwrap().0;
    let redis = open(&format!("unix:{}", path.display()));
    let still = stand_still();
    let asked = Instant::now();
    let question = tokio::spawn(async move { redis.get("a", 10).await });
    let mut first = accepted().await;
    greet_and_be_asked(&mut first).await;
    tokio::time::advance(TIMEOUT * 6 / 10).await;
    assert!(!question.is_finished());
    drop(first);
    let _second = accepted().await;
    drop(still);
    assert!(question.await.unwrap().is_err());
    let took = asked.elapsed();
    assert!(took >= TIMEOUT && took <= TIMEOUT + ROUNDED, "{took:?}");
}

#[tokio::test]
async fn c04_a_line_that_was_long_in_the_making_is_left_to_the_next_question() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let redis = open(&format!("unix:{}", path.display()));
    let ask = |redis: Redis| tokio::spawn(async move { redis.get("a", 10).await });
    let still = stand_still();
    let question = ask(redis.clone());
    let mut line = within("a connection", listener.accept()).await.unwrap().0;
    tokio::time::advance(TIMEOUT * 6 / 10).await;
    greet_and_be_asked(&mut line).await;
    tokio::time::advance(TIMEOUT * 4 / 10 + ROUNDED).await;
    assert!(question.await.unwrap().is_err());
    let question = ask(redis.clone());
    greet_and_be_asked(&mut line).await;
    // That one had all of its time.
    tokio::time::advance(TIMEOUT + ROUNDED).await;
    assert!(question.await.unwrap().is_err());
    drop(still);
    within("the end of the line", line.read_to_end(&mut Vec::new())).await.unwrap();
}

#[tokio::test]
async fn a_password_is_given_and_never_shown() {
    if !installed() {
        return;
    }
    let port = free_port();
    let server = Server::on_port(port, &["--requirepass", "hunter2"]).await;
    let with = |user: &str| open(&server.url.replace("redis://", &format!("redis://{user}@")));
    with(":hunter2").ping().await.unwrap();
    with("default:hunter2").ping().await.unwrap();
    let wrong = with(":hunter3");
    let error = wrong.ping().await.unwrap_err();
    assert!(!format!("{wrong:?} {error} {error:?}").contains("hunter"), "{error}");
    assert!(open(&server.url).ping().await.is_err());
}

#[tokio::test]
async fn tls_is_spoken_to_whom_the_authority_vouches_for_and_to_nobody_else() {
    if !installed() {
        return;
    }
    let (certs, port) = (Certs::new(), free_port());
    let path = |name: &str| certs.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key, tls) = (path("ca.pem"), path("cert.pem"), path("key.pem"), port.to_string());
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let more = [&["--tls-port", &tls, "--tls-auth-clients", "no"], files.as_slice()].concat();
    let _server = Server::on_port(0, &more).await;
    let url = RedisUrl::parse(&format!("rediss://127.0.0.1:{port}")).unwrap();
    let trusting = Redis::open(&url, Some(std::fs::read(&ca).unwrap()), Duration::from_secs(2)).unwrap();
    trusting.set("a", b"1", MINUTE).await.unwrap();
    assert!(trusting.subscribe("news").await.is_ok());
    assert!(Redis::open(&url, None, Duration::from_secs(2)).unwrap().ping().await.is_err());
    assert!(open(&format!("redis://127.0.0.1:{port}")).ping().await.is_err());
}

#[tokio::test]
async fn the_sentinels_say_who_the_master_is() {
    if !installed() {
        return;
    }
    let (one, two, sentinel) = (free_port(), free_port(), free_port());
    let mut master = Server::on_port(one, &[]).await;
    let replica = Server::on_port(two, &["--replicaof", "127.0.0.1", &one.to_string()]).await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "sentinel monitor m 127.0.0.1 {one} 1\nsentinel down-after-milliseconds m 300\nsentinel failover-timeout m 2000\n"
    );
    let file = write(dir.path(), "sentinel.conf", &text);
    let _sentinel = Server::on_port_with_file(sentinel, &file).await;
    let redis = open(&format!("redis+sentinel://127.0.0.1:{sentinel}/m"));
    redis.set("a", b"1", MINUTE).await.unwrap();
    let copied = async {
        while replica.cli(&["GET", "a"]).await != "1" {
            tokio::time::sleep(ms(20)).await
        }
    };
    within("the replica has it", copied).await;
    let known = async {
        while !_sentinel.cli(&["SENTINEL", "replicas", "m"]).await.contains(&two.to_string()) {
            tokio::time::sleep(ms(20)).await;
        }
    };
    within("the sentinel knows the replica", known).await;
    master.kill().await;
    let over = async {
        while redis.set("b", b"2", MINUTE).await.is_err() {
            tokio::time::sleep(ms(50)).await;
        }
    };
    within("the replica is the master", over).await;
    assert_eq!(redis.get("a", 10).await.unwrap().unwrap().value, b"1");
}

#[tokio::test]
async fn sentinels_are_given_their_own_password_and_the_master_its_own() {
    if !installed() {
        return;
    }
    let (port, sentinel) = (free_port(), free_port());
    let _master = Server::on_port(port, &["--requirepass", "of-the-data"]).await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "sentinel monitor m 127.0.0.1 {port} 1\nsentinel auth-pass m of-the-data\nrequirepass of-the-sentinel\n\
         user watcher on >of-the-watcher +@all\n"
    );
    let file = write(dir.path(), "sentinel.conf", &text);
    let _sentinel = Server::on_port_with_file(sentinel, &file).await;
    let at = |password: &str, query: &str| open(&format!("redis+sentinel://:{password}@127.0.0.1:{sentinel}/m{query}"));
    at("of-the-data", "?sentinel_password=of-the-sentinel").set("a", b"1", MINUTE).await.unwrap();
    let watcher = at("of-the-data", "?sentinel_username=watcher&sentinel_password=of-the-watcher");
    assert_eq!(watcher.get("a", 10).await.unwrap().unwrap().value, b"1");
    assert!(watcher.subscribe("news").await.is_ok());
    for (password, query) in [
        ("of-the-data", ""),
        ("of-the-data", "?sentinel_password=of-the-data"),
        ("of-the-sentinel", "?sentinel_password=of-the-sentinel"),
        ("of-the-data", "?sentinel_username=watcher&sentinel_password=of-the-sentinel"),
    ] {
        let redis = at(password, query);
        let error = redis.ping().await.unwrap_err();
        assert!(!format!("{redis:?} {error}").contains("of-the"), "{error}");
    }
}

#[tokio::test]
async fn a_cluster_is_asked_where_the_key_is() {
    if !installed() {
        return;
    }
    let (one, two) = (free_port(), free_port());
    let node = async |port: u16| {
        let bus = free_port().to_string();
        Server::on_port(port, &["--cluster-enabled", "yes", "--cluster-port", &bus]).await
    };
    let (a, b) = (node(one).await, node(two).await);
    a.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "8000"]).await;
    b.cli(&["CLUSTER", "ADDSLOTSRANGE", "8001", "16383"]).await;
    let bus = b.cli(&["CONFIG", "GET", "cluster-port"]).await;
    let bus = bus.split_whitespace().last().unwrap().to_owned();
    a.cli(&["CLUSTER", "MEET", "127.0.0.1", &two.to_string(), &bus]).await;
    for server in [&a, &b] {
        let whole = async {
            while !server.cli(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {
                tokio::time::sleep(ms(20)).await;
            }
        };
        within("the cluster is whole", whole).await;
    }
    let redis = open(&format!("redis+cluster://127.0.0.1:{one}"));
    redis.ping().await.unwrap();
    for n in 0..40 {
        redis.set(&format!("k{n}"), b"v", MINUTE).await.unwrap();
        assert_eq!(redis.get(&format!("k{n}"), 9).await.unwrap().unwrap().value, b"v");
        redis.set(&format!("{{t}}:{n}"), b"v", MINUTE).await.unwrap();
    }
    assert_eq!(redis.scan("{t}:").await.unwrap().len(), 40);
    let mut heard = redis.subscribe("news").await.unwrap();
    redis.publish("news", b"one").await.unwrap();
    assert_eq!(within("a message", heard.next()).await.as_deref(), Some(&b"one"[..]));
}
