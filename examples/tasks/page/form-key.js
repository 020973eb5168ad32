// The key of a form. If a form is sent again with the same values, for instance after a lost answer, the same key makes the
// server continue. Without it, the name of a new organisation would belong to somebody else: to the first attempt.

export function keyFor(form, values) {
  const text = JSON.stringify(values);
  const saved = JSON.parse(sessionStorage.getItem(form));
  if (saved?.text === text) return saved.key;
  const random = crypto.getRandomValues(new Uint8Array(16));
  const key = [...random].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  sessionStorage.setItem(form, JSON.stringify({ text, key }));
  return key;
}

/** After the answer has come: the same values, sent again, are another form. */
export const forgetKey = (form) => sessionStorage.removeItem(form);
