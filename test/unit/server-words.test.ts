/** What servers say that are not quite OpenAI's: errors of any shape, completions under any content type. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { readErrorBody } from '../../src/teacher/error-body.ts';
import { completionOfEvents } from '../../src/teacher/event-stream.ts';
import { tolerantFetch, UnreadableResponse } from '../../src/teacher/transport.ts';

describe('errors keep their words', () => {
  const MOON = 'the moon is full';
  const shapes: readonly (readonly [name: string, body: unknown, expected?: object])[] = [
    ['OpenAI', { error: { message: MOON, type: 'invalid_request_error', param: 'seed', code: 'unsupported' } }, { code: 'unsupported', type: 'invalid_request_error', param: 'seed' }],
    ['a text', { error: MOON }],
    ['a list', [{ error: { code: 400, message: MOON, status: 'INVALID_ARGUMENT' } }], { code: 'INVALID_ARGUMENT' }],
    ['FastAPI', { detail: MOON }],
    ['FastAPI, places', { detail: [{ loc: ['body', 'store'], msg: MOON, type: 'extra_forbidden', input: 'secret of the row' }] }],
    ['message at the top', { object: 'error', message: MOON, code: 400 }],
    ['error_code', { error_code: 'BAD_REQUEST', message: MOON }, { code: 'BAD_REQUEST' }],
    ['error_type', { error: MOON, error_type: 'validation' }, { type: 'validation' }],
    ['inner error', { error: { message: 'outer', innererror: { code: 'ResponsibleAIPolicyViolation', message: MOON } } }],
    ['a provider in a gateway', { error: { message: 'Provider returned error', metadata: { raw: `{"error":{"message":"${MOON}"}}` } } }],
    ['errors', { errors: [MOON, 'and more'] }],
  ];
  for (const [name, body, expected] of shapes) {
    it(name, () => {
      const read = readErrorBody(JSON.stringify(body));
      assert.match(read.message, /moon/);
      assert.doesNotMatch(read.message, /secret/);
      for (const [key, value] of Object.entries(expected ?? {})) assert.equal(read[key as 'code'], value);
    });
  }
  it('pages and plain text', () => {
    assert.equal(readErrorBody('<html><head><title>502 Bad Gateway</title><style>x{}</style></head><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>').message, '502 Bad Gateway: 502 Bad Gateway nginx');
    assert.equal(readErrorBody(' the moon ').message, 'the moon');
    assert.equal(readErrorBody('').message, '');
    assert.equal(readErrorBody('{"a":1}').message, '{"a":1}');
    assert.ok(readErrorBody('x'.repeat(1e6)).message.length <= 2_000);
    // Of what is never closed nothing is searched for through half a megabyte: that took half a minute.
    assert.ok(readErrorBody(`<html>${'<script'.repeat(60_000)}`).message.length <= 2_000);
  });
});

describe('completions are read as they come', () => {
  const whole = { model: 'm', choices: [{ message: { role: 'assistant', content: 'hi' }, finish_reason: 'stop' }] };
  const chunk = (delta: object, finish: string | null = null): string => `data: ${JSON.stringify({ model: 'm', choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;

  async function fetched(body: string, { status = 200, type = 'application/json' } = {}): Promise<{ readonly status: number; readonly body: unknown }> {
    const server = createServer((_request, response) => response.writeHead(status, { 'content-type': type }).end(body));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const response = await tolerantFetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/chat/completions`, { method: 'POST', body: '{}' });
      return { status: response.status, body: await response.json() };
    } finally {
      server.close();
    }
  }

  it('JSON under other types, between blank lines, comments and end marks', async () => {
    const text = JSON.stringify(whole);
    for (const [body, type] of [[text, 'text/plain'], [`\n\n${text}`, 'application/json'], [`: PROCESSING\n\n: PROCESSING\n\n${text}`, 'application/json'], [`${text}\n\ndata: [DONE]\n\n`, 'text/event-stream'], [`[${text}]`, 'application/json']] as const) {
      assert.deepEqual(await fetched(body, { type }), { status: 200, body: whole }, body);
    }
  });

  it('a stream that nobody asked for is put together, with reasoning, usage and the reason of its end', async () => {
    const events = `${chunk({ role: 'assistant', reasoning_content: 'hm' })}${chunk({ content: 'h' })}: comment\n\n${chunk({ content: 'i' }, 'length')}data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n`;
    const { body } = await fetched(events, { type: 'text/event-stream' });
    assert.deepEqual(body, { model: 'm', choices: [{ index: 0, message: { role: 'assistant', reasoning_content: 'hm', content: 'hi' }, finish_reason: 'length' }], usage: { prompt_tokens: 3, completion_tokens: 2 } });
    assert.equal(completionOfEvents('data: [DONE]\n\n'), undefined);
    assert.equal(completionOfEvents('data: {"choices":[{"delta":{"content":"h"'), undefined);
  });

  it('a success that holds an error is that error; what is neither cannot be read', async () => {
    assert.deepEqual((await fetched('{"error":{"code":429,"message":"slow down"}}')).status, 429);
    assert.deepEqual((await fetched('{"error":"upstream went away"}')).status, 502);
    assert.deepEqual((await fetched('data: {"error":{"message":"no"}}\n\n', { type: 'text/event-stream' })).status, 502);
    for (const body of ['', 'hello', '{}', 'null', '[]', '{"choices":[]}', '<html>sign in</html>']) await assert.rejects(fetched(body, { type: 'text/html' }), UnreadableResponse, body);
  });
});
