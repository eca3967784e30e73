<?php
// A receiver as Shoporama's document tells a shop's developer to write it: the raw body, hash_hmac, hash_equals. The
// secret is read anew for every request, so that a test can change it.

if ($_SERVER['REQUEST_METHOD'] === 'GET') { // the test asks whether we run
    exit;
}

$secret = trim(file_get_contents(getenv('SECRET_FILE')));

$payload = file_get_contents('php://input');
$expected = 'sha256=' . hash_hmac('sha256', $payload, $secret);
if (!hash_equals($expected, $_SERVER['HTTP_X_WEBHOOK_SIGNATURE'] ?? '')) {
    http_response_code(401);
    echo 'the signature is not ours';
    exit;
}

// Each of the two says which event it is; the document lets receivers use either.
$event = json_decode($payload, true);
if (!is_array($event) || $event['event'] !== $_SERVER['HTTP_X_WEBHOOK_EVENT']) {
    http_response_code(400);
    echo 'the header and the body do not speak of the same event';
    exit;
}
echo 'thanks for ' . $event['event'];
