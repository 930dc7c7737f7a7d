"use strict";

// Shows the OpenAPI document whose address the page holds.
const page = document.getElementById("docs");

SwaggerUIBundle({
  url: page.dataset.document,
  domNode: page,
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  // A key typed into the page is forgotten with it.
  persistAuthorization: false,
  validatorUrl: null,
});
