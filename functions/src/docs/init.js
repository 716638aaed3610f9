// Shows openapi.json, and lets its reader try each operation. "Authorize" takes a session token.

// The operations of this tag repeat those of `tasks`.
const FOLDED_TAG = "tasks-by-user";

// Swagger UI has a dark theme for pages that set this class.
const dark = matchMedia("(prefers-color-scheme: dark)");
const chooseTheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", chooseTheme);
chooseTheme();

// The contract as the page shows it, without
// - headers that all responses have: the description lists them once
// - links between operations: only programs use them
// - cookie authentication: a script cannot set the Cookie header
function shown(contract) {
  const responses = Object.values(contract.components.responses);
  const isCommon = (header) => responses.every((response) => header in response.headers);
  for (const header of Object.keys(responses[0].headers).filter(isCommon)) {
    for (const response of responses) delete response.headers[header];
  }
  for (const response of responses) delete response.links;
  const schemes = contract.components.securitySchemes;
  const isCookie = (name) => schemes[name].in === "cookie";
  contract.security = contract.security.filter((requirement) => !Object.keys(requirement).some(isCookie));
  for (const name of Object.keys(schemes).filter(isCookie)) delete schemes[name];
  return contract;
}

// Attributes for screen readers and keyboards, which Swagger UI's elements lack.
const ATTRIBUTES = [
  ["#servers", "aria-label", () => "Server"],
  ["tr[data-param-name] :is(input, select, textarea)", "aria-label", (field) => field.closest("tr").dataset.paramName],
  [".examples-select-element", "aria-label", () => "Example"],
  ["textarea.body-param__text", "aria-label", () => "Request body"],
  [".copy-to-clipboard button", "aria-label", () => "Copy"],
  [".close-modal", "aria-label", () => "Close"],
  [".modal-btn", "aria-label", (button) => button.textContent],
  [".modal-ux h6", "aria-level", () => "5"],
  ["pre.microlight", "tabindex", () => "0"],
];
function addAttributes() {
  for (const [selector, name, value] of ATTRIBUTES) {
    for (const element of document.querySelectorAll(selector)) element.setAttribute(name, value(element));
  }
}

const plugin = () => ({
  statePlugins: {
    spec: { wrapActions: { updateJsonSpec: (original) => (contract) => original(shown(contract)) } },
    layout: { wrapSelectors: { isShown: (original) => (_, thing, byDefault) => original(thing, byDefault && thing[1] !== FOLDED_TAG) } },
  },
  // Instead of a link inside a button, which screen readers cannot reach. An open operation has its link in the address bar.
  wrapComponents: { DeepLink: (_, { React }) => ({ text }) => React.createElement("span", null, text) },
});

window.addEventListener("load", () => {
  new MutationObserver(addAttributes).observe(document.getElementById("reference"), { childList: true, subtree: true });
  SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#reference",
    deepLinking: true,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    syntaxHighlight: { theme: "obsidian" },
    plugins: [plugin],
    // The browser does not store the token.
    persistAuthorization: false,
    // The validator is a server of a third party.
    validatorUrl: null,
  });
});
