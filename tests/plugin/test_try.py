def test_a(project):
    r = project.run("--ftloop")
    print(project.trained(), list(project.log()))
    r = project.run("--ftloop", "-v")
    r = project.run("--ftloop", "-q", "--junitxml=j.xml")
    print((project.path/"j.xml").read_text())
    r = project.run("--ftloop", "--ftloop-iterations", "0")
    assert 0
