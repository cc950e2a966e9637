// Shows openapi.json. What the document says becomes text, never markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
let openapi;

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function resolve(schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.split("/").slice(1).reduce((at, key) => at[key], openapi);
}

function kind(schema) {
  if (schema.$ref) return kind(resolve(schema));
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.map(kind))].join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  return schema.type ?? "any";
}

function limits(schema) {
  const found = [
    ["minLength", "at least", "characters"], ["maxLength", "at most", "characters"],
    ["minItems", "at least", "items"], ["maxItems", "at most", "items"],
  ].filter(([key]) => schema[key] !== undefined);
  return found.map(([key, word, unit]) => `${word} ${schema[key]} ${unit}`).join(", ");
}

function* fields(schema, prefix = "", depth = 0) {
  const whole = resolve(schema);
  for (const [name, field] of Object.entries(whole.properties ?? {})) {
    const required = whole.required?.includes(name) ? "required" : "";
    const notes = [required, field.description, limits(field)].filter(Boolean).join("; ");
    yield [prefix + name, kind(field), notes];
    if (depth < 2) {
      const inner = field.type === "array" ? field.items ?? {} : field;
      for (const choice of inner.anyOf ?? [inner]) {
        yield* fields(choice, `${prefix}${name}${field.type === "array" ? "[]" : ""}.`, depth + 1);
      }
    }
  }
}

function table(rows) {
  const made = element("table");
  for (const [name, ...cells] of rows) {
    made.append(element("tr", "", element("td", "", element("code", name)), ...cells.map((cell) => element("td", cell))));
  }
  return made;
}

async function send(method, path, body, output) {
  const headers = {};
  const key = document.getElementById("key").value.trim();
  if (key) headers["x-api-key"] = key;
  if (body !== undefined) headers["content-type"] = "application/json";
  output.textContent = "...";
  try {
    const response = await fetch(path.slice(1), { method: method.toUpperCase(), headers, body, credentials: "omit" });
    const text = await response.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: as it is */ }
    output.textContent = `${response.status}\n${shown}`;
  } catch (error) {
    output.textContent = String(error);
  }
}

function operation(path, method, described) {
  const schema = described.requestBody?.content?.["application/json"]?.schema;
  const shown = element("details", "",
    element("summary", "", element("span", method.toUpperCase() + " "), element("code", path), ` ${described.summary ?? ""}`),
    element("p", described.description));
  shown.querySelector("span").className = "method";
  let input;
  if (schema) {
    const whole = resolve(schema);
    shown.append(element("h3", "Request"), table(fields(schema)));
    input = element("textarea");
    input.value = JSON.stringify(whole.examples?.[0] ?? {}, null, 2);
    input.setAttribute("aria-label", "request body");
    shown.append(input);
  }
  const output = element("pre");
  output.setAttribute("aria-live", "polite");
  const button = element("button", "Send");
  button.addEventListener("click", () => send(method, path, input?.value, output));
  shown.append(button, output, element("h3", "Responses"),
    table(Object.entries(described.responses ?? {}).map(([status, { description }]) => [status, description])));
  return shown;
}

async function show() {
  const main = document.getElementById("operations");
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
    openapi = await response.json();
    document.getElementById("title").textContent = `${openapi.info.title} ${openapi.info.version}`;
    document.getElementById("description").textContent = openapi.info.description ?? "";
    for (const [path, methods] of Object.entries(openapi.paths)) {
      for (const method of METHODS.filter((name) => methods[name])) {
        main.append(operation(path, method, methods[method]));
      }
    }
  } catch (error) {
    main.textContent = String(error);
  }
}

show();
