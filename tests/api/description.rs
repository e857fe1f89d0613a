//! The OpenAPI document says what the node does, no less and no more.

use crate::world::World;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub const COMMANDS: [&str; 9] =
    ["publish", "broadcast", "history", "presence", "channels", "sessions", "disconnect", "drain", "info"];
const READS: [&str; 4] = ["/api/v1/openapi.json", "/metrics", "/healthz", "/readyz"];

/// The document as a node serves it.
struct Description(Value);

impl Description {
    async fn of(world: &World) -> Self {
        let answer = world.get("/api/v1/openapi.json").await;
        assert_eq!(answer.status, 200);
        Self(answer.json())
    }

    fn request(&self, command: &str) -> &Value {
        let operation = &self.0["paths"][format!("/api/v1/{command}")]["post"];
        assert_eq!(operation["operationId"], command);
        &operation["requestBody"]["content"]["application/json"]
    }

    fn answer(&self, command: &str, status: &str) -> &Value {
        let response = &self.0["paths"][format!("/api/v1/{command}")]["post"]["responses"][status];
        &self.follow(response)["content"]["application/json"]["schema"]
    }

    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.0.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
            None => value,
        }
    }

    /// Checks `value` against the part of JSON Schema that the document uses.
    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.follow(schema);
        for (keyword, wanted) in schema.as_object().unwrap() {
            let fits = match keyword.as_str() {
                "type" => has_type(value, wanted.as_str().unwrap()),
                "properties" | "required" => value.is_object(),
                "additionalProperties" => true,
                "items" => value.is_array(),
                "enum" => wanted.as_array().unwrap().contains(value),
                "oneOf" => {
                    let fit = wanted.as_array().unwrap().iter().filter(|one| self.check(one, value).is_ok());
                    fit.count() == 1
                }
                "minimum" => value.as_u64() >= wanted.as_u64(),
                "maximum" => value.as_u64() <= wanted.as_u64(),
                "minLength" => length(value) >= wanted.as_u64().unwrap(),
                "maxLength" => length(value) <= wanted.as_u64().unwrap(),
                "minItems" | "maxItems" | "uniqueItems" | "contentEncoding" | "description" | "default" => {
                    true
                }
                unknown => panic!("this check does not know `{unknown}`"),
            };
            if !fits {
                return Err(format!("{value} does not fit {keyword}: {wanted}"));
            }
        }
        match value {
            Value::Object(object) => self.check_object(schema, object),
            Value::Array(items) if schema.get("items").is_some() => {
                items.iter().try_for_each(|item| self.check(&schema["items"], item))
            }
            _ => Ok(()),
        }
    }

    fn check_object(&self, schema: &Value, object: &Map<String, Value>) -> Result<(), String> {
        for required in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(required.as_str().unwrap()) {
                return Err(format!("{required} is missing in {object:?}"));
            }
        }
        for (name, value) in object {
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(property), _) => self.check(property, value)?,
                (None, Value::Bool(false)) => return Err(format!("{name} is not described")),
                (None, Value::Object(_)) => self.check(&schema["additionalProperties"], value)?,
                (None, _) => {}
            }
        }
        Ok(())
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        unknown => panic!("this check does not know the type `{unknown}`"),
    }
}

fn length(value: &Value) -> u64 {
    value.as_str().unwrap().chars().count() as u64
}

#[tokio::test]
async fn it_describes_every_path() {
    let world = World::new().await;
    let description = Description::of(&world).await;
    assert_eq!(description.0["openapi"], "3.1.0");
    assert_eq!(description.0["info"]["version"], env!("CARGO_PKG_VERSION"));
    let described: BTreeSet<_> = description.0["paths"].as_object().unwrap().keys().cloned().collect();
    let commands = COMMANDS.iter().map(|command| format!("/api/v1/{command}"));
    let expected: BTreeSet<_> = commands.chain(READS.map(str::to_owned)).collect();
    assert_eq!(described, expected);
    for path in described {
        let (method, other) =
            if READS.contains(&path.as_str()) { ("get", Method::POST) } else { ("post", Method::GET) };
        let methods: Vec<_> = description.0["paths"][&path].as_object().unwrap().keys().collect();
        assert_eq!(methods, [method], "{path}");
        assert_eq!(world.send(world.request(other, &path)).await.status, 405, "{path}");
    }
}

#[tokio::test]
async fn its_examples_are_answered_as_it_says() {
    let world = World::new().await;
    let _alice = world.session_of("alice", &["chat:1"]).await;
    let description = Description::of(&world).await;
    for command in COMMANDS {
        let request = description.request(command);
        assert_eq!(description.check(&request["schema"], &request["example"]), Ok(()), "{command}");
        let answer = world.post(command, request["example"].clone()).await;
        answer.result();
        let checked = description.check(description.answer(command, "200"), &answer.json());
        assert_eq!(checked, Ok(()), "{command}");
    }
}

#[tokio::test]
async fn its_answers_are_complete_for_every_kind_of_payload_and_page() {
    let world = World::new().await;
    let description = Description::of(&world).await;
    for payload in
        [json!({"data": null}), json!({"data_b64": "AA=="}), json!({"data": 1, "key": "k", "user": "u"})]
    {
        let mut body = payload;
        body["channel"] = "chat:1".into();
        assert_eq!(description.check(&description.request("publish")["schema"], &body), Ok(()));
        world.call("publish", body).await;
    }
    let page = world.post("history", json!({"channel": "chat:1", "limit": 2})).await;
    assert!(page.result().get("cursor").is_some());
    assert_eq!(description.check(description.answer("history", "200"), &page.json()), Ok(()));
}

#[tokio::test]
async fn it_names_the_fields_that_each_command_takes() {
    let world = World::new().await;
    let description = Description::of(&world).await;
    for command in COMMANDS {
        // The node names the fields it knows when it meets one that it does not.
        let message = world.post(command, json!({"?": 1})).await.failure(400, "bad_request");
        let taken: BTreeSet<_> = message.split('`').skip(3).step_by(2).collect();
        let schema = &description.request(command)["schema"];
        assert_eq!(schema["additionalProperties"], false);
        let described: BTreeSet<_> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(taken, described, "{command}: {message}");
    }
}

#[tokio::test]
async fn failures_have_the_shape_it_describes() {
    let world = World::new().await;
    let description = Description::of(&world).await;
    for command in COMMANDS {
        let answer = world.post(command, json!([])).await;
        answer.failure(400, "bad_request");
        assert_eq!(
            description.check(description.answer(command, "default"), &answer.json()),
            Ok(()),
            "{command}"
        );
    }
}

/// The requests that `docs/api.md` shows: `post <command> '<body>'`.
fn documented() -> Vec<(&'static str, Value)> {
    let lines = include_str!("../../docs/api.md").lines().filter_map(|line| line.strip_prefix("post "));
    let request = |line: &'static str| {
        let (command, body) = line.split_once(' ').unwrap();
        let body = body.strip_prefix('\'').and_then(|body| body.strip_suffix('\'')).unwrap();
        (command, serde_json::from_str(body).unwrap())
    };
    lines.map(request).collect()
}

#[tokio::test]
async fn what_the_manual_shows_is_described_and_works() {
    let world = World::new().await;
    let description = Description::of(&world).await;
    let shown: BTreeSet<_> = documented().into_iter().map(|(command, _)| command).collect();
    assert_eq!(shown, COMMANDS.into());
    for (command, body) in documented() {
        assert_eq!(description.check(&description.request(command)["schema"], &body), Ok(()), "{command}");
        world.call(command, body).await;
    }
}
