"""Figures about votes, as pure functions of counts: no database, no page.

`intervals` shares and tests of shares; `davidson` the model of wins, losses and ties; `leaderboard`
versions by strength, with and without length and loudness; `agreement` how alike people vote;
`annotators` what is known of each person; `rounds` and `behaviour` what the loop did.
"""
