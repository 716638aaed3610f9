// Shows openapi.json, and lets its reader try each operation. "Authorize" takes a session token.

// The operations of this tag repeat those of `tasks`.
const FOLDED_TAG = "tasks-by-user";

const plugin = () => ({
  statePlugins: {
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
