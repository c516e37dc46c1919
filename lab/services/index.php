<?php
// The vulnerable PHP application behind apache-php and nginx-php-fpm. Uploads are .php files that
// the server runs by itself.

$directory = $_SERVER['LAB_DIR'];
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);

function parameter(string $name): string
{
    $value = $_GET[$name] ?? '';
    if (($_GET['r'] ?? '') !== '1') {
        return $value;
    }
    return implode(array_reverse(preg_split('//u', $value, -1, PREG_SPLIT_NO_EMPTY)));
}

function answer(string $body, int $status = 200): void
{
    http_response_code($status);
    header('Content-Type: text/plain');
    header('Content-Length: ' . strlen($body));
    echo $body;
}

function orders(string $number): string
{
    usleep(4000);
    return "orders $number\n";
}

function render(string $template): string
{
    ob_start();
    eval('?>' . $template);
    return ob_get_clean();
}

function convert(string $number): string
{
    if (!ctype_digit($number)) {
        return "not a number\n";
    }
    $process = proc_open(['/usr/bin/factor', $number], [1 => ['pipe', 'w']], $pipes);
    $output = stream_get_contents($pipes[1]);
    proc_close($process);
    return $output;
}

function upload(string $folder, string $name): string
{
    file_put_contents($folder . '/' . basename($name), file_get_contents('php://input'));
    return "stored\n";
}

// The worker itself sleeps. mod_php has no fastcgi_finish_request(): the client has the whole body
// by then, and is told not to wait for more on this connection.
function later(string $command): void
{
    ignore_user_abort(true);
    header('Connection: close');
    answer("later\n");
    if (function_exists('fastcgi_finish_request')) {
        fastcgi_finish_request();
    } else {
        while (ob_get_level() > 0) {
            ob_end_flush();
        }
        flush();
    }
    sleep(2);
    shell_exec($command);
}

function fetch(string $url): void
{
    $body = @file_get_contents($url);
    $body === false ? answer("no answer\n", 502) : answer($body);
}

function send_file(string $file): void
{
    is_file($file) ? answer(file_get_contents($file)) : answer("not found\n", 404);
}

match ($path) {
    '/orders' => answer(orders(parameter('n'))),
    '/ping' => answer((string) shell_exec('echo ping ' . parameter('host'))),
    '/render' => answer(render(parameter('tpl'))),
    '/fetch' => fetch($_GET['url'] ?? ''),
    '/file' => send_file($directory . '/public/' . ($_GET['path'] ?? '')),
    '/upload' => answer(upload(__DIR__ . '/uploads', $_GET['name'] ?? '')),
    '/convert' => answer(convert($_GET['text'] ?? '')),
    '/later' => later($_GET['cmd'] ?? ''),
    default => answer("not found\n", 404),
};
