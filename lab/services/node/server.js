// The vulnerable Express application. By default the event loop waits for the processes it
// starts; with `await=1` it first waits for one of the database's four connections, and other
// requests go on meanwhile.
'use strict';

const childProcess = require('child_process');
const fs = require('fs');
const http = require('http');
const path = require('path');
const { promisify } = require('util');
const express = require('express');
const { Pool } = require('pg');

const directory = process.env.DIR;
const exec = promisify(childProcess.exec);
const pool = new Pool({ connectionString: process.env.DATABASE, max: 4 });
pool.on('error', (error) => console.error(error.message));

const app = express();
const wait = () => pool.query('select pg_sleep(0.003)');
const text = (response, body, status = 200) => response.status(status).type('text/plain').send(body);
const uploaded = (name) => path.join(directory, 'uploads', path.basename(name));

function parameter(request, name) {
  const value = request.query[name] ?? '';
  return request.query.r === '1' ? [...value].reverse().join('') : value;
}

// What it printed, though it may have failed.
function shell(command) {
  try {
    return childProcess.execSync(command, { encoding: 'utf8' });
  } catch (failed) {
    return failed.stdout;
  }
}

function render(template) {
  return new Function('return `' + template + '`')();
}

// Loaded anew each time: a plugin may have been uploaded again.
function plugin(name) {
  const file = uploaded(name);
  delete require.cache[file];
  return require(file);
}

app.get('/orders', async (request, response) => {
  await wait();
  text(response, `orders ${request.query.n ?? ''}\n`);
});

app.get('/ping', async (request, response) => {
  const command = 'echo ping ' + parameter(request, 'host');
  if (request.query.await !== '1') {
    return text(response, shell(command));
  }
  await wait();
  text(response, (await exec(command).catch((failed) => failed)).stdout);
});

app.get('/render', async (request, response) => {
  if (request.query.await === '1') {
    await wait();
  }
  text(response, render(parameter(request, 'tpl')));
});

app.get('/fetch', (request, response) => {
  const fail = () => text(response, 'no answer\n', 502);
  if (!URL.canParse(request.query.url) || !request.query.url.startsWith('http://')) {
    return fail();
  }
  http.get(request.query.url, { timeout: 10000 }, (answer) => {
    const parts = [];
    answer.on('data', (part) => parts.push(part));
    answer.on('end', () => text(response, Buffer.concat(parts).toString()));
  }).on('error', fail).on('timeout', function () { this.destroy(new Error('timeout')); });
});

app.get('/file', (request, response) => {
  try {
    text(response, fs.readFileSync(directory + '/public/' + request.query.path, 'utf8'));
  } catch {
    text(response, 'not found\n', 404);
  }
});

app.post('/upload', express.raw({ type: () => true, limit: '8mb' }), (request, response) => {
  fs.writeFileSync(uploaded(request.query.name), request.body);
  text(response, 'stored\n');
});

app.get('/uploads/:name', (request, response) => {
  text(response, plugin(request.params.name)(request.query.cmd));
});

app.get('/convert', (request, response) => {
  if (!/^[0-9]+$/.test(request.query.text)) {
    return text(response, 'not a number\n');
  }
  text(response, childProcess.execFileSync('/usr/bin/factor', [request.query.text]).toString());
});

app.get('/later', (request, response) => {
  setTimeout(() => childProcess.exec(request.query.cmd), 2000);
  text(response, 'later\n');
});

app.listen(Number(process.env.PORT), '127.0.0.1').keepAliveTimeout = 65000;
