//! MCP servers: their tools, and the calls of them.
mod connection;
mod stdio;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, PaginatedRequestParams, ResourceContents, Tool,
};
use runmill_shared::{
    App,
    domain::{plugin::FoundTool, tool::ToolType},
    services::plugins::Access,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{described, is_schema, too_many};
use crate::tools::ToolError;

/// A server that always has one more page is not asked for ever.
const MAX_PAGES: usize = 100;

/// What the `tools.config` column holds of an MCP tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpTool {
    /// The server's own name for it.
    pub tool: String,
    /// Whether the server says that a call may be made again.
    #[serde(default)]
    pub idempotent: bool,
}

/// All tools of the server, page by page.
pub async fn tools(app: &App, access: &Access) -> Result<Vec<FoundTool>, ToolError> {
    let connection = connection::get(app, access).await?;
    let (mut found, mut cursor) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = connection.peer().list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor))).await;
        let page = page.map_err(|e| connection.failed(e))?;
        for tool in page.tools {
            found.push(found_tool(tool)?);
        }
        if found.len() > app.config.plugins.max_tools {
            return Err(too_many(found.len(), app.config.plugins.max_tools));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
    Err(ToolError::new("TOO_MANY_TOOLS", format!("the server has more than {MAX_PAGES} pages of tools")))
}

fn found_tool(tool: Tool) -> Result<FoundTool, ToolError> {
    let input_schema = Value::Object((*tool.input_schema).clone());
    if !is_schema(&input_schema) {
        return Err(ToolError::new(
            "INVALID_TOOL",
            format!("the input schema of {:.64} is no JSON Schema, or too large", tool.name),
        ));
    }
    // Providers refuse a schema that does not say so.
    let is_object = input_schema["type"] == "object";
    let input_schema = if is_object { input_schema } else { json!({"type": "object", "allOf": [input_schema]}) };
    let says_so = tool.annotations.as_ref().is_some_and(|a| a.read_only_hint == Some(true) || a.idempotent_hint == Some(true));
    let config = McpTool { tool: tool.name.to_string(), idempotent: says_so };
    Ok(FoundTool {
        description: described(tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default()),
        kind: ToolType::Mcp,
        input_schema,
        output_schema: tool.output_schema.map(|schema| Value::Object((*schema).clone())).filter(is_schema),
        config: serde_json::to_value(config).map_err(|e| ToolError::new("INTERNAL", e.to_string()))?,
        name: tool.name.into_owned(),
    })
}

/// Calls a tool. Dropped before it answers, it tells the server that nobody waits any more.
pub async fn call(app: &App, access: &Access, tool: &McpTool, arguments: Map<String, Value>) -> Result<Value, ToolError> {
    let connection = connection::get(app, access).await?;
    let request = CallToolRequestParams::new(tool.tool.clone()).with_arguments(arguments);
    match connection.peer().call_tool_once(request).await {
        Ok(CallToolResponse::Complete(result)) => outcome(result),
        Ok(_) => Err(ToolError::new("UNSUPPORTED", "the tool asks for more than arguments, which is not supported")),
        Err(e) => Err(connection.failed(e)),
    }
}

/// Structured content as it is; text alone as text; else a list of what there is.
fn outcome(result: CallToolResult) -> Result<Value, ToolError> {
    let texts: Option<Vec<_>> = result.content.iter().map(|c| c.as_text().map(|t| t.text.as_str())).collect();
    let text = texts.map(|texts| texts.join("\n"));
    if result.is_error == Some(true) {
        let said = text.filter(|t| !t.is_empty()).or_else(|| result.structured_content.as_ref().map(Value::to_string));
        return Err(ToolError::new("TOOL_ERROR", said.unwrap_or_else(|| "the tool failed and does not say why".to_owned())));
    }
    Ok(match (result.structured_content, text) {
        (Some(structured), _) => structured,
        (None, Some(text)) => Value::String(text),
        (None, None) => json!({ "content": result.content.into_iter().map(block).collect::<Vec<_>>() }),
    })
}

fn block(content: ContentBlock) -> Value {
    match content {
        ContentBlock::Text(text) => json!({"type": "text", "text": text.text}),
        ContentBlock::Image(image) => json!({"type": "image", "mime_type": image.mime_type, "data": image.data}),
        ContentBlock::Audio(audio) => json!({"type": "audio", "mime_type": audio.mime_type, "data": audio.data}),
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => json!({"type": "resource", "uri": uri, "text": text}),
            ResourceContents::BlobResourceContents { uri, blob, .. } => json!({"type": "resource", "uri": uri, "data": blob}),
            _ => json!({"type": "unknown"}),
        },
        ContentBlock::ResourceLink(link) => json!({"type": "resource", "uri": link.uri, "name": link.name}),
        _ => json!({"type": "unknown"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(value: Value) -> CallToolResult {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_kind_of_content_becomes_json() {
        let text = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        assert_eq!(outcome(result(json!({"content": text}))), Ok(json!("a\nb")));
        let structured = json!({"content": text, "structuredContent": {"sum": 3}});
        assert_eq!(outcome(result(structured)), Ok(json!({"sum": 3})));
        let mixed = json!({"content": [
            {"type": "text", "text": "a"},
            {"type": "image", "mimeType": "image/png", "data": "aGk="},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}},
            {"type": "resource_link", "uri": "file:///b", "name": "b"},
        ]});
        let expected = json!({"content": [
            {"type": "text", "text": "a"},
            {"type": "image", "mime_type": "image/png", "data": "aGk="},
            {"type": "resource", "uri": "file:///a", "text": "inside"},
            {"type": "resource", "uri": "file:///b", "name": "b"},
        ]});
        assert_eq!(outcome(result(mixed)), Ok(expected));
        let failed = outcome(result(json!({"content": text, "isError": true}))).unwrap_err();
        assert_eq!((failed.code.as_ref(), failed.message.as_str()), ("TOOL_ERROR", "a\nb"));
    }

    #[test]
    fn a_tool_without_a_schema_that_can_be_checked_is_refused() {
        let tool = |schema: Value| found_tool(serde_json::from_value(json!({"name": "t", "inputSchema": schema})).unwrap());
        assert_eq!(tool(json!({"type": "object"})).unwrap().input_schema, json!({"type": "object"}));
        assert_eq!(tool(json!({})).unwrap().input_schema, json!({"type": "object", "allOf": [{}]}));
        for bad in [json!({"type": 5}), json!({"$ref": "http://127.0.0.1/x"}), json!({"type": "object", "x": "y".repeat(70_000)})]
        {
            assert_eq!(tool(bad).unwrap_err().code, "INVALID_TOOL");
        }
    }
}
