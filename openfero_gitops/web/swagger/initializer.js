// Shows the document of this server, and no other. Only GET requests can be sent: nothing that is
// tried out changes anything.
SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  layout: "BaseLayout",
  queryConfigEnabled: false,
  supportedSubmitMethods: ["get"],
  validatorUrl: null,
});
