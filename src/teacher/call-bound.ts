/** The most that one call may cost, before it is made. */
import type { TeacherRequest } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import type { EndpointTraits } from './endpoint-traits.ts';
import { roomOf, schemaOf } from './openai-chat.ts';
import { costUsd, tokenUpperBound } from './prices.ts';
import type { Price } from './prices.ts';

/** What a schema costs beside its own text. */
const SCHEMA_TOKENS = 64;

/** With room for what the model reasons, where it does. `extraTokens`: room beyond that of the first asking. */
export function callUpperBound(price: Price, request: TeacherRequest, traits: EndpointTraits, extraTokens = 0): Cost {
  // The schema of a JSON question is counted already.
  const form = request.task.kind === 'label' ? schemaOf(request, traits) : undefined;
  const promptTokens = tokenUpperBound(request).promptTokens + (form === undefined ? 0 : Buffer.byteLength(JSON.stringify(form.schema)) + SCHEMA_TOKENS);
  const completionTokens = roomOf(request.task, traits, extraTokens);
  return { usd: costUsd(price, { promptTokens, cachedPromptTokens: 0, completionTokens }), tokens: promptTokens + completionTokens };
}
