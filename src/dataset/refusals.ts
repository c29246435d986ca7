/** Openings of answers that decline. A model that refuses in words still reports `stop`. */
const REFUSALS = [
  /^(?:i['’]?m|i am) (?:very )?sorry,? (?:but )?(?:i|as an)\b/i,
  /^sorry,? (?:but )?i (?:can['’]?t|cannot|am unable|am not able)\b/i,
  /^(?:i can['’]?t|i cannot|i am unable to|i['’]m unable to|i['’]m not able to) (?:help|assist|comply|provide|fulfil|do that)/i,
  /^(?:很?抱歉|对不起)[,，。]?.{0,12}(?:无法|不能|没办法)/u,
];

export function declines(text: string): boolean {
  return REFUSALS.some((pattern) => pattern.test(text.trim()));
}
