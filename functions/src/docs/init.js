// Shows openapi.json, and lets its reader try each call: "Authorize" takes a session's token.
window.addEventListener("load", () => {
  window.reference = SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#reference",
    deepLinking: true,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    // A token is gone with the page: nothing of it is kept in the browser.
    persistAuthorization: false,
    // The validator would be a third party's.
    validatorUrl: null,
  });
});
