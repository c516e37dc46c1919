// A gateway on 127.0.0.1:$PORT: asks the service at $BEHIND for what it is asked itself, and passes no
// header on. One thread and a pool of connections that any request may use.
const http = require('http');

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });

const server = http.createServer((request, response) => {
  const options = {
    agent, host: '127.0.0.1', port: process.env.BEHIND, method: request.method, path: request.url,
    headers: request.headers['content-length'] ? { 'Content-Length': request.headers['content-length'] } : {},
  };
  const behind = http.request(options, (answer) => {
    response.writeHead(answer.statusCode, { 'Content-Type': answer.headers['content-type'] || 'text/plain' });
    answer.pipe(response);
  });
  behind.on('error', (error) => {
    response.writeHead(502);
    response.end(`${error}\n`);
  });
  request.pipe(behind);
});
server.keepAliveTimeout = 65_000;
server.listen(process.env.PORT, '127.0.0.1');
