// Shows openapi.json, and lets its reader try each operation. "Authorize" takes a session token.

// The operations of this tag repeat those of `tasks`.
const FOLDED_TAG = "tasks-by-user";

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

const plugin = () => ({
  statePlugins: {
    spec: { wrapActions: { updateJsonSpec: (original) => (contract) => original(shown(contract)) } },
    layout: { wrapSelectors: { isShown: (original) => (_, thing, byDefault) => original(thing, byDefault && thing[1] !== FOLDED_TAG) } },
  },
});

window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#reference",
    deepLinking: true,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    plugins: [plugin],
    // The browser does not store the token.
    persistAuthorization: false,
    // The validator is a server of a third party.
    validatorUrl: null,
  });
});
