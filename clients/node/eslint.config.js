import js from '@eslint/js';

const globals = [
  'process',
  'Buffer',
  'console',
  'TextDecoder',
  'URL',
  'fetch',
  'AbortController',
  'setImmediate',
  'setTimeout',
  'clearTimeout',
  'performance',
];

export default [
  js.configs.recommended,
  {
    languageOptions: { globals: Object.fromEntries(globals.map((name) => [name, 'readonly'])) },
    rules: {
      'no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      eqeqeq: 'error',
      'no-var': 'error',
      'prefer-const': 'error',
    },
  },
  { ignores: ['test/types/**'] },
];
