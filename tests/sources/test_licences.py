import pytest

from geograft.sources.licences import FREE_LICENCES, licence_name, licence_names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CC BY-SA 3.0", "cc-by-sa"),
        ("CC-BY-4.0", "cc-by"),
        ("CC BY 2.0 DE", "cc-by"),
        ("CC_BY_SA_4_0", "cc-by-sa"),
        ("CC_BY_4_0", "cc-by"),
        ("CC0_1_0", "cc0"),
        ("CC-BY", "cc-by"),
        ("Attribution-ShareAlike License", "cc-by-sa"),
        ("Attribution-NonCommercial-NoDerivs License", "cc-by-nc-nd"),
        ("https://creativecommons.org/licenses/by-sa/3.0/", "cc-by-sa"),
        ("https://creativecommons.org/licenses/by-nc/2.0/deed.en", "cc-by-nc"),
        ("http://creativecommons.org/licenses/by/4.0/legalcode", "cc-by"),
        ("http://creativecommons.org/licenses/by-nc/4.0/legalcode", "cc-by-nc"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/legalcode", "cc0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "public-domain"),
        ("CC0 1.0 Universal", "cc0"),
        ("cc-zero", "cc0"),
        ("Public Domain Mark", "public-domain"),
        ("pd-mark", "public-domain"),
        ("PDM", "public-domain"),
        ("{{PD-self}}", "public-domain"),
        ("PD-USGov-NASA", "us-gov"),
        ("PD-old-100", "public-domain"),
        ("United States Government Work", "us-gov"),
        ("No known copyright restrictions", "no-known-copyright"),
        ("Creative Commons Attribution Share Alike 4.0 International", "cc-by-sa"),
        ("Creative Commons Attribution-Share Alike 2.0 Generic, some rights reserved", "cc-by-sa"),
        ("cc-by-sa-3.0,2.5,2.0,1.0", "cc-by-sa"),
        ("{{self|GFDL|cc-by-sa-all}}", "cc-by-sa"),
        ("Cc-by-sa-3.0-migrated|GFDL", "cc-by-sa"),
        ("© Copyright Bob Harvey / CC BY-SA 2.0", "cc-by-sa"),
        ("CC BY-SA 4.0 <https://creativecommons.org/licenses/by-sa/4.0>, via Wikimedia Commons", "cc-by-sa"),
    ],
)
def test_one_licence_has_one_name(text, name):
    assert licence_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "All Rights Reserved",
        "all-rights-reserved",
        "C",
        "CC BY-NC 2.0",
        "CC-BY-NC",
        "CC BY-ND 4.0",
        "CC BY-NC-SA 3.0",
        "CC_BY_NC_4_0",
        "CC BY 4.0, non-commercial use",
        "CC BY 4.0. All rights reserved.",
        "CC BY for editorial use only",
        "not public domain",
        "Public domain? All rights reserved!",
        "not a United States Government work",
        "GFDL",
        "{{GFDL}}",
        "FAL",
        "proprietary",
        "© someone",
        "© Cory C. Cole by agency",
        "Creative Commons",
        "?",
        "by agency",
        "UNSPECIFIED",
        "cc bystander",
        "",
    ],
)
def test_what_is_not_free_is_not_among_the_free(text):
    assert licence_name(text) not in FREE_LICENCES


def test_a_text_may_offer_several_licences():
    assert licence_names("{{self|GFDL|cc-by-sa-3.0,2.5}}") == ("gfdl", "cc-by-sa")
    assert licence_names("GFDL or CC BY-NC 2.0") == ("gfdl", "cc-by-nc")


def test_every_free_licence_is_its_own_name():
    assert tuple(map(licence_name, FREE_LICENCES)) == FREE_LICENCES
