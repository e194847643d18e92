import unittest

from jit_plugin import Failed, OutcomeUnknown, Retryable, encode
from jit_plugin.http import key
from jit_plugin.testing import FakeHttp, Reply, away, lost, secret


def raises(error):
    def answer(sent):
        raise error

    return answer


class HttpTest(unittest.TestCase):
    def test_secrets_are_placed_wherever_a_text_can_stand(self):
        http, pw = FakeHttp(Reply(204)), secret("pw")
        http.send("POST", ["a/b"], json={"deep": [{"a~b/c": pw}], "name": "v"}, headers={"X-Token": ["t=", pw]})
        http.send("POST", ["a"], form={"jwt": pw, "a": "b c"})
        http.send("PUT", ["a"], text=["key=", pw], query={"list": "a b"})
        bodies = [sent.body for sent in http.sent]
        self.assertEqual(bodies, ['{"deep": [{"a~b/c": "<pw>"}], "name": "v"}', "jwt=<pw>&a=b%20c", "key=<pw>"])
        self.assertEqual(http.sent[0].headers, {"x-token": "t=<pw>", "content-type": "application/json"})
        self.assertEqual(http.lines, ["POST /a%2Fb", "POST /a", "PUT /a?list=a%20b"])

    def test_a_plugin_reads_no_secret(self):
        answer = Reply(json={"data": {"password": "pw-1", "name": "v-1"}, "echo": "token-1"})
        http = FakeHttp(answer, secrets={"token": "token-1"})
        token = http.credential("token")
        response = http.send("GET", ["a"], headers={"t": token}, withhold=["/data/password", "/data/missing"])
        self.assertNotIn("pw-1", response.body)
        self.assertNotIn("token-1", response.body)
        self.assertEqual(response.json()["data"], {"password": None, "name": "v-1"})
        self.assertEqual([held is None for held in response.withheld], [False, True])
        self.assertEqual(http.send("GET", ["a"], withhold=[""]).body, "")
        for reads in (str, "{}".format, lambda token: f"{token}", lambda token: "%s" % token):
            with self.assertRaises(TypeError):
                reads(token)
        self.assertEqual(repr([token]), "[Secret]")
        self.assertFalse(hasattr(token, "__dict__"))

    def test_a_lost_answer_is_unknown_unless_it_was_a_question(self):
        for error, method, changes, expected in (
            (away(), "POST", False, Retryable),
            (lost(), "POST", False, OutcomeUnknown),
            (lost(), "DELETE", False, OutcomeUnknown),
            (lost(), "GET", True, OutcomeUnknown),
            (lost(), "GET", False, Retryable),
        ):
            with self.assertRaises(expected, msg=(method, changes)):
                FakeHttp(raises(error)).send(method, ["a"], changes=changes)
        for path in ([""], ["."], ["..", "a"]):
            with self.assertRaises(Failed):
                FakeHttp(Reply()).send("GET", path)

    def test_what_is_no_request_is_told(self):
        pw = secret("pw")
        for what, told in (
            ({"path": "users"}, "path must be a list of str, not str"),
            ({"method": "get"}, "method is 'get'"),
            ({"json": {}, "form": {}}, "one body, not json and form"),
            ({"json": pw}, "must not be a Secret as a whole"),
            ({"json": {1: "a"}}, "a name in json must be a str, not int"),
            ({"json": float("nan")}, "not JSON compliant"),
            ({"headers": {"a": 7}}, "headers['a'] must be a str, a Secret or a list of them, not int"),
            ({"query": {"a": None}}, "query['a'] must be a str, not None"),
            ({"changes": 1}, "changes must be True or False, not int"),
            ({"withhold": "/a"}, "withhold must be a list of str, not str"),
        ):
            asked = {"method": "POST", "path": ["a"], **what}
            http = FakeHttp(Reply())
            with self.assertRaises((TypeError, ValueError), msg=what) as raised:
                http.send(asked.pop("method"), asked.pop("path"), **asked)
            self.assertIn(told, str(raised.exception))
            self.assertEqual(http.sent, [])
        deep = []
        for _ in range(100):
            deep = [deep]
        with self.assertRaises(ValueError):
            FakeHttp(Reply()).send("POST", ["a"], json=deep)

    def test_the_host_writes_basic_and_encodings_and_the_plugin_sees_none(self):
        http = FakeHttp(lambda sent: Reply(200, text=sent.body), secrets={"admin": "pw-of-admin", "new": "pw-of-new"})
        admin, new = http.credential("admin"), http.credential("new")
        hashed = encode.salted_digest(new, "sha256", salt="before", salt_bytes=4, notation="base64")
        response = http.send(
            "PUT",
            ["users", "a"],
            headers={"authorization": encode.basic("root", admin)},
            json={"hash": hashed, "ldap": encode.joined("{SSHA}", encode.digest(new, "sha1", notation="hex")), "n": 1},
        )
        self.assertEqual(http.sent[0].headers["authorization"], "Basic <root:pw-of-admin>")
        self.assertEqual(
            http.sent[0].json(), {"hash": "<sha256:pw-of-new>", "ldap": "{SSHA}<sha1:pw-of-new>", "n": 1}
        )
        self.assertNotIn("pw-of-new", response.body)
        http.send("POST", ["a"], form={"p": encode.bcrypt(new, cost=4)})
        self.assertEqual(http.sent[1].body, "p=<bcrypt:pw-of-new>")
        http.send("POST", ["a"], text=["x ", encode.pbkdf2(new, "sha512", iterations=1), encode.written(new, "hex")])
        self.assertEqual(http.sent[2].body, "x <sha512:pw-of-new><hex:pw-of-new>")

    def test_an_encoding_that_there_is_not_is_refused_where_it_is_written(self):
        new = FakeHttp(Reply(), secrets={"new": "n"}).credential("new")
        for wrong, told in (
            (lambda: encode.basic("a:b", new), "no colon"),
            (lambda: encode.basic("a", "text"), "secret must be a Secret, not str"),
            (lambda: encode.digest(new, "md5", notation="hex"), "digest is 'md5': it is one of sha1"),
            (lambda: encode.written(new, "base32"), "notation is 'base32'"),
            (lambda: encode.salted_digest(new, "sha1", salt="before", salt_bytes=3, notation="hex"), "4 to 64"),
            (lambda: encode.bcrypt(new, cost=13), "4 to 12"),
            (lambda: encode.pbkdf2(new, "sha1", iterations=1), "digest is 'sha1'"),
            (lambda: encode.joined("a", 7), "parts[1] must be a str, not int"),
        ):
            with self.assertRaises((TypeError, ValueError)) as raised:
                wrong()
            self.assertIn(told, str(raised.exception))
        with self.assertRaises(TypeError):
            str(encode.bcrypt(new, cost=4))

    def test_what_is_kept_runs_out_and_gives_way_to_what_is_valid_for_longer(self):
        http = FakeHttp(Reply(), secrets={"first": "first", "second": "second"})
        first, second = http.credential("first"), http.credential("second")

        def kept(at_least=0):
            http.kept("token", at_least)
            return http.kept_secrets["token"][0]

        self.assertIsNone(http.kept("token"))
        http.keep("token", first, 100)
        http.keep("token", second, 500, 50)
        self.assertEqual(kept(), "first")
        http.keep("token", second, 500, 100)
        self.assertEqual(kept(), "second")
        self.assertIsNone(http.kept("token", 501))
        self.assertFalse(http.forget("token", first))
        http.now += 500
        self.assertIsNone(http.kept("token"))
        self.assertTrue(http.forget("token", second))
        http.is_full = True
        with self.assertRaises(Failed):
            http.keep("token", first, 1)
        with self.assertRaises(Failed):
            http.credential("third")

    def test_keys_are_those_of_the_other_sdks(self):
        self.assertEqual(key("token"), "token cbf29ce484222325")
        others = {key("token", "ab"), key("token", "a", "b"), key("token", "b", "a"), key("mark", "ab")}
        self.assertEqual(len(others), 4)

    def test_retry_after_is_read_where_it_has_seconds(self):
        for value, expected in (("7", 7000), (" 7 ", 7000), ("", None), ("soon", None), ("9" * 40, None), ("²", None)):
            response = FakeHttp(Reply(headers={"retry-after": value})).send("GET", ["a"])
            self.assertEqual(response.retry_after_ms, expected, value)


if __name__ == "__main__":
    unittest.main()
