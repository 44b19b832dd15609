"""Both official SDKs behind one call: an action and its parameters by their names on the wire."""

import importlib
import json

import alibabacloud_tea_openapi.client as tea
from alibabacloud_ecs20140526 import models as ecs_models
from alibabacloud_ecs20140526.client import Client as Ecs
from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpc20160428 import models as vpc_models
from alibabacloud_vpc20160428.client import Client as Vpc
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient

OF_VPC = ("DescribeVpcs", "DescribeVSwitches", "DescribeVSwitchAttributes")


class Refused(Exception):
    """The API's refusal, as either SDK reads it."""

    def __init__(self, code, status):
        super().__init__(code)
        self.code = code
        self.status = status


def models_of(action):
    return vpc_models if action in OF_VPC else ecs_models


def unknown_to_the_models(action, answer):
    """What is lost when the newer SDK's model of the answer reads it and writes it again."""
    model = getattr(models_of(action), f"{action}ResponseBody")()
    return lost(answer, model.from_map(answer).to_map(), "")


def lost(sent, read, path):
    if isinstance(sent, dict) and isinstance(read, dict):
        missing = [f"{path}.{name}" for name in sent if name not in read]
        return missing + [
            one for name in sent if name in read for one in lost(sent[name], read[name], f"{path}.{name}")
        ]
    if isinstance(sent, list) and isinstance(read, list) and len(sent) == len(read):
        return [one for pair in zip(sent, read) for one in lost(*pair, f"{path}[]")]
    return [] if sent == read else [f"{path}: {sent!r} is read as {read!r}"]


class Newer:
    """alibabacloud-ecs20140526 and alibabacloud-vpc20160428: ACS3-HMAC-SHA256."""

    def __init__(self, lab):
        self.region = lab["region"]
        self.clients = {}
        for name, client in (("ecs", Ecs), ("vpc", Vpc)):
            config = Config(
                access_key_id=lab["key"],
                access_key_secret=lab["secret"],
                endpoint=lab[name],
                protocol="HTTPS" if lab.get("ca") else "HTTP",
                ca=lab.get("ca"),
                region_id=lab["region"],
            )
            self.clients[name] = client(config)
        self.raw = None
        read = tea.DaraStream.read_as_json

        def remember(stream):
            self.raw = read(stream)
            return self.raw

        tea.DaraStream.read_as_json = staticmethod(remember)

    def call(self, action, parameters):
        client = self.clients["vpc" if action in OF_VPC else "ecs"]
        name = next(name for name in dir(client) if name.replace("_", "") == action.lower())
        request = getattr(models_of(action), f"{action}Request")().from_map(parameters)
        # A parameter that the model does not know would be left out.
        known = {name: value for name, value in request.to_map().items() if value != []}
        assert known == parameters, (action, known, parameters)
        try:
            body = getattr(client, name)(request).body
        except Exception as error:  # The SDK raises what it makes of the answer.
            if getattr(error, "data", None) is None:
                raise
            raise Refused(error.code, error.data.get("statusCode")) from error
        assert body.request_id == self.raw["RequestId"]
        return self.raw


class Older:
    """aliyun-python-sdk-ecs and aliyun-python-sdk-vpc: HMAC-SHA1, in the query or in a form."""

    def __init__(self, lab):
        self.lab = lab
        verify = lab.get("ca") or None
        self.client = AcsClient(lab["key"], lab["secret"], lab["region"], auto_retry=False, verify=verify)

    def call(self, action, parameters):
        package = "aliyunsdkvpc.request.v20160428" if action in OF_VPC else "aliyunsdkecs.request.v20140526"
        module = importlib.import_module(f"{package}.{action}Request")
        request = getattr(module, f"{action}Request")()
        request.set_endpoint(self.lab["vpc" if action in OF_VPC else "ecs"])
        request.set_protocol_type("https" if self.lab.get("ca") else "http")
        request.set_accept_format("json")
        for name, value in parameters.items():
            if name != "RegionId":  # The client adds it.
                self.set(request, name, value)
        if self.lab.get("form"):
            request.set_method("POST")
            for name, value in list(request.get_query_params().items()):
                request.add_body_params(name, value)
            request.set_query_params({})
        try:
            return json.loads(self.client.do_action_with_exception(request))
        except ServerException as error:
            raise Refused(error.get_error_code(), error.get_http_status()) from error

    @staticmethod
    def set(request, name, value):
        """By the request's own method; lists have names in the plural."""
        for setter in (f"set_{name}", f"set_{name}s", f"set_{name}es"):
            if hasattr(request, setter):
                getattr(request, setter)(value)
                return
        raise SystemExit(f"{type(request).__name__} does not know {name}")
