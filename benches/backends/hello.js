// A small body on 127.0.0.1:$PORT.
const http = require('http');

const body = 'hello, world';
const server = http.createServer((request, response) => {
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
  response.end(body);
});
server.keepAliveTimeout = 600_000;
server.listen(process.env.PORT, '127.0.0.1');
