"""What the server says of itself: its OpenAPI document, the page that shows it, and the tables of docs/api.md."""
